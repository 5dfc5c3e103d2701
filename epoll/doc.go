// Package epoll performs the operations of package backend by readiness: it
// makes the system call, and if that would have to wait, it queues the
// operation until epoll(7) says that the descriptor is ready. It is the backend
// for machines and containers where io_uring is refused, and it passes the same
// suite (package backendtest).
//
// # How it saves system calls
//
// Every descriptor is registered once, edge-triggered, when an operation on it
// has to wait for the first time. From then on the entry of the descriptor
// remembers whether it is readable and writable: an edge sets the bit, EAGAIN
// or a short transfer on a stream clears it. While a bit is clear no call is
// tried in vain. In the steady state a message costs one recv, one send and its
// share of one epoll_wait.
//
// # Descriptor numbers that come back
//
// Descriptors closed with OpClose are forgotten at once, and events that were
// still under way for them are recognised by a generation number. A descriptor
// may also be closed behind the back of this package with close(2) while no
// operation waits on it, and the kernel then hands out its number anew. This is
// noticed in three ways: accept returns a number that is registered here;
// arming a poll always asks the kernel, which answers ENOENT; and an operation
// that began to wait on an entry that was idle before is a suspect, whose
// registration is proven again as soon as nothing happens for a millisecond, or
// after 1024 turns. So a reused number costs at most a short delay, and a busy
// loop pays nothing.
//
// The file to start reading is backend.go; ready.go is what happens when a
// descriptor becomes ready.
package epoll
