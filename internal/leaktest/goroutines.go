package leaktest

import (
	"runtime"
	"strings"
)

// goroutines returns the stacks of all goroutines but the calling one and
// those that the standard library keeps for ever, by their number.
func goroutines() map[string]string {
	all := make(map[string]string)
	for i, stack := range strings.Split(string(stacks()), "\n\n") {
		if i == 0 || permanent(stack) {
			continue
		}
		if header := strings.Fields(stack); len(header) > 1 {
			all[header[1]] = strings.TrimSpace(stack)
		}
	}
	return all
}

// lookingUp reports whether one of the goroutines resolves a name.
func lookingUp(stacks map[string]string) bool {
	for _, stack := range stacks {
		if strings.Contains(stack, "net.(*Resolver).") {
			return true
		}
	}
	return false
}

// stacks returns the dump of all goroutines; the calling one comes first.
func stacks() []byte {
	for size := 64 << 10; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return buf[:n]
		}
	}
}

// permanent reports whether the goroutine belongs to the runtime or to
// os/signal, which start theirs on first use and never end them.
func permanent(stack string) bool {
	return strings.Contains(stack, "\ncreated by runtime.") ||
		strings.Contains(stack, "\ncreated by os/signal.")
}
