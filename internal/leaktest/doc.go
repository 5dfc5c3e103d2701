// Package leaktest finds what a test left behind: open descriptors and goroutines.
// An operation in flight is one of a backend that was not closed, whose descriptors
// are open.
//
// A package uses it by its TestMain:
//
//	func TestMain(m *testing.M) { leaktest.Main(m) }
//
// A test that wants to check a part of itself takes a [Snapshot] before and
// asks it for [Snapshot.Leaks] after.
package leaktest
