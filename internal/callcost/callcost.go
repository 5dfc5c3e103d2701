// Package callcost tells how dear a system call is. That differs by a factor of
// five between machines, for what processors and kernels do against Spectre, and
// for seccomp filters. So it is measured.
package callcost

import (
	"sync"
	"time"

	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

// cheap is how long a system call takes at most where it is cheap.
const cheap = 150 * time.Nanosecond

// Dear reports whether system calls are dear here, so that few large ones are
// better than many small ones. It measures that when it is first called.
var Dear = sync.OnceValue(func() bool { return dear(measure()) })

func dear(cost time.Duration) bool { return cost > cheap }

// measure returns how long a system call takes: one that sends, to no socket. The
// quickest of several short series tells best, for others may use the processor.
func measure() time.Duration {
	const series, calls = 16, 32
	least := time.Duration(1 << 62)
	for range series {
		start := time.Now()
		for range calls {
			nowait.Send(-1, nil)
		}
		least = min(least, time.Since(start))
	}
	return least / calls
}
