// Package integration runs Ringloop where a development machine does not, in
// containers that forbid io_uring and on other kernels, and against programs
// that other people wrote.
//
// The tests that do so have the build tag integration and are started by
// ci/containers, ci/kernels and ci/peers, which install what they need:
//
//	TestContainers  test binaries, doctor and examples in FROM scratch images,
//	                under the engine's default seccomp profile, also without
//	                privileges, and under profiles that refuse io_uring
//	TestKernels     the same binaries on other kernels, one of them for arm64,
//	                emulated by qemu, with the program in vminit as init
//	TestPeers       the examples and the transports on both backends, with curl,
//	                wrk, redis-cli, redis-benchmark, socat, openssl and Python's
//	                asyncio as the other end
//
// What the first two run is the list in suites.go: a package joins with one line
// there. How a run is judged is in outcome.go: no test may fail, and no test may
// be skipped unless the place refuses io_uring and the test says exactly that.
package integration
