// Package leaktest finds what a test left behind: open descriptors,
// goroutines, operations in flight.
//
// A package uses it by its TestMain:
//
//	func TestMain(m *testing.M) { leaktest.Main(m, nil) }
//
// A test that wants to check a part of itself takes a [Snapshot] before and
// asks it for [Snapshot.Leaks] after.
package leaktest
