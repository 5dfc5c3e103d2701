package uring

// What the kernel has gained since the definitions of iouring_syscall were
// written (include/uapi/linux/io_uring.h).
const (
	setupSingleIssuer = 1 << 12 // 6.0
	setupDeferTaskrun = 1 << 13 // 6.1
	setupNoSQArray    = 1 << 16 // 6.6

	featExtArg = 1 << 8 // 5.11

	enterExtArg         = 1 << 3
	enterRegisteredRing = 1 << 4

	sqTaskrun = 1 << 2

	cqeBuffer      = 1 << 0
	cqeMore        = 1 << 1
	cqeBufferShift = 16

	recvMultishot   = 1 << 1
	acceptMultishot = 1 << 0
	pollMultishot   = 1 << 0

	registerRingFDs   = 20
	unregisterRingFDs = 21
	registerPbufRing  = 22

	opWaitID = 50 // 6.7
)

// maxTransfer is the most that one read or write moves (MAX_RW_COUNT).
const maxTransfer = 0x7ffff000
