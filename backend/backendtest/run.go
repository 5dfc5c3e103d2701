package backendtest

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/leaktest"
)

// Factory makes the backend under test, not yet enabled.
type Factory func() (backend.Backend, error)

// test is one behaviour. Its name says what holds.
type test struct {
	name string
	// raw tests get a driver whose backend is not enabled.
	raw bool
	// slow tests wait for timers of the kernel.
	slow bool
	fn   func(d *driver)
}

// tests returns the whole suite in a fixed order.
func tests() []test {
	return slices.Concat(
		lifecycleTests(), waitTests(), signalTests(), checkTests(),
		recvTests(), datagramTests(), packetTests(), sendTests(), acceptTests(), connectTests(),
		readTests(), writeTests(), pollTests(), sendfileTests(), shutdownTests(), waitidTests(),
		orderTests(), cancelTests(), closeTests(), multishotTests(), keepTests(),
		receiverTests(), tryTests(), bulkTests(), memoryTests(), stressTests(),
	)
}

// Run runs the suite as subtests of t. The factory is called once or more for
// every test, on the thread that uses the backend. Nothing else may open
// descriptors or start goroutines meanwhile.
func Run(t *testing.T, name string, factory func() (backend.Backend, error)) {
	run(t, name, tests(), factory)
}

// RunQuick is Run without the tests that fill TCP connections, which takes most
// of the time. It is for further configurations of a backend that passes Run.
func RunQuick(t *testing.T, name string, factory func() (backend.Backend, error)) {
	run(t, name, slices.DeleteFunc(tests(), func(tc test) bool { return tc.slow }), factory)
}

func run(t *testing.T, name string, list []test, factory Factory) {
	t.Run(name, func(t *testing.T) {
		for _, tc := range list {
			t.Run(tc.name, func(t *testing.T) { runTest(t, tc, factory) })
		}
	})
}

// runTest runs one test on a thread of its own and looks for leaks after it.
func runTest(t *testing.T, tc test, factory Factory) {
	before, err := leaktest.Take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if leaks := before.Leaks(time.Minute); len(leaks) > 0 {
			t.Errorf("the test left something behind:\n%s", strings.Join(leaks, "\n"))
		}
	})
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	d := newDriver(t, factory)
	defer d.end()
	if !tc.raw {
		d.enable()
	}
	tc.fn(d)
	d.finish()
}
