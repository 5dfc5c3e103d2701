// Package integration runs Ringloop where a development machine does not: in
// containers that forbid io_uring, and on other kernels.
//
// The tests that do so have the build tag integration and are started by
// ci/containers and ci/kernels, which install what they need:
//
//	TestContainers  test binaries, doctor and file server in FROM scratch images,
//	                under the engine's default seccomp profile, also without
//	                privileges, and under profiles that refuse io_uring
//	TestKernels     the same binaries on other kernels, emulated by qemu, with
//	                the program in vminit as init
//
// What is run is the list in suites.go: a package joins with one line there.
// How a run is judged is in outcome.go: no test may fail, and no test may be
// skipped unless the place refuses io_uring and the test says exactly that.
package integration
