//go:build 386 || arm || mips || mipsle

package backend

// What system calls are given is laid out as 64-bit kernels want it, so that a
// 32-bit program would build, and hang.
var _ = ringloop_needs_a_64_bit_architecture
