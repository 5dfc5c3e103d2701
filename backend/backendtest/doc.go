// Package backendtest is the proof of the contract in package backend: one
// suite that every backend passes.
//
//	func TestConformance(t *testing.T) {
//		backendtest.Run(t, "epoll", func() (backend.Backend, error) {
//			return epoll.New(nil)
//		})
//	}
//
// The suite needs /proc and /dev/pts, a directory for temporary files, and the
// loopback interface for those tests that say tcp or udp. It needs no shell and
// no file of the system: child processes are the test binary itself.
//
// Nothing in it is decided by time. Waiting has a generous limit, and reaching
// it is a failure.
package backendtest
