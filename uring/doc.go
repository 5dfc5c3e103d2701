// Package uring performs the operations of package backend with io_uring(7).
//
// One ring belongs to one thread. Submit writes a submission queue entry into
// memory shared with the kernel; Wait hands over all new entries with one system
// call, and makes a second one, which sleeps, only if nothing has completed by
// then; Dispatch reads the completions and tells the receivers. The user data of
// an entry is the number of a slot and its generation, never a pointer: a
// completion that comes for a slot in its next life is dropped.
//
// io_uring itself keeps no order between two operations on one descriptor, so
// the backend does: per descriptor and direction only the first operation is
// with the kernel, the others queue behind it.
//
// It works on Linux 6.1 and newer. [Available] says why it cannot be used
// where it cannot, and [Backend.Features] which of the newer abilities of the
// kernel are in use and why not the others.
//
// A reader starts with backend.go; from there, prep.go is what each operation
// looks like to the kernel and complete.go what its completion means.
package uring
