package forbid

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnlyTheGivenCallsAreRefused(t *testing.T) {
	Alone(t, func(t *testing.T) {
		Calls(t, unix.EPERM, unix.SYS_GETPGID, unix.SYS_GETSID)
		if _, err := unix.Getpgid(0); err != unix.EPERM {
			t.Errorf("getpgid: %v", err)
		}
		if _, err := unix.Getsid(0); err != unix.EPERM {
			t.Errorf("getsid: %v", err)
		}
		if _, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil {
			t.Errorf("getpriority: %v", err)
		}
	})
}

func TestOnlyCallsWithTheGivenFlagAreRefused(t *testing.T) {
	Alone(t, func(t *testing.T) {
		Flags(t, unix.EPERM, unix.SYS_EVENTFD2, 1, unix.EFD_SEMAPHORE)
		if _, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_SEMAPHORE); err != unix.EPERM {
			t.Errorf("with the flag: %v", err)
		}
		fd, err := unix.Eventfd(unix.EFD_SEMAPHORE, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatalf("without: %v", err)
		}
		_ = unix.Close(fd)
	})
}

func TestWhatIsSkippedAloneIsSkipped(t *testing.T) {
	for _, skips := range []bool{true, false} {
		var sub *testing.T
		t.Run("sub", func(t *testing.T) {
			sub = t
			Alone(t, func(t *testing.T) {
				if skips {
					t.Skip("for a test")
				}
			})
		})
		if sub != nil && sub.Skipped() != skips {
			t.Errorf("skipped: %v, want %v", sub.Skipped(), skips)
		}
	}
}
