package leaktest

import (
	"context"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func take(t *testing.T) *Snapshot {
	t.Helper()
	s, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantLeak(t *testing.T, s *Snapshot, words ...string) {
	t.Helper()
	all := strings.Join(s.Leaks(0), "\n")
	for _, w := range words {
		if !strings.Contains(all, w) {
			t.Errorf("the listing does not have %q:\n%s", w, all)
		}
	}
}

func TestAnOpenFileIsListedUntilItIsClosed(t *testing.T) {
	s := take(t)
	f, err := os.CreateTemp(t.TempDir(), "leak")
	if err != nil {
		t.Fatal(err)
	}
	wantLeak(t, s, "is open", f.Name())
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if leaks := s.Leaks(patience); len(leaks) != 0 {
		t.Errorf("after the close: %q", leaks)
	}
}

func TestAListeningSocketIsDescribedByItsAddress(t *testing.T) {
	s := take(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	wantLeak(t, s, "stream listening", l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAClosedForeignDescriptorIsReported(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "leak")
	if err != nil {
		t.Fatal(err)
	}
	s := take(t)
	name := f.Name()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	wantLeak(t, s, "was closed by someone who does not own it", name)
}

func TestARunningGoroutineIsListedWithItsStack(t *testing.T) {
	s := take(t)
	stop := make(chan struct{})
	started := make(chan struct{})
	go lingeringGoroutine(started, stop)
	<-started
	wantLeak(t, s, "lingeringGoroutine")
	close(stop)
	if leaks := s.Leaks(patience); len(leaks) != 0 {
		t.Errorf("after its end: %q", leaks)
	}
}

func lingeringGoroutine(started, stop chan struct{}) {
	close(started)
	<-stop
}

func TestLeaksWaitsForWhatIsJustEnding(t *testing.T) {
	s := take(t)
	release := make(chan struct{})
	go lingeringGoroutine(make(chan struct{}), release)
	timer := time.AfterFunc(20*time.Millisecond, func() { close(release) })
	defer timer.Stop()
	if leaks := s.Leaks(patience); len(leaks) != 0 {
		t.Errorf("leaks: %q", leaks)
	}
}

func TestASnapshotHasNothingOfALookUp(t *testing.T) {
	dialled, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		once.Do(func() { close(dialled) })
		<-release
		return nil, net.ErrClosed
	}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := r.LookupIPAddr(ctx, "name.invalid.")
		ended <- err
	}()
	<-dialled
	cancel()
	if err := <-ended; err == nil {
		t.Error("the look-up found something")
	}
	if !lookingUp(goroutines()) {
		t.Error("the look-up that was cancelled is not seen")
	}
	close(release)
	if _, err := Take(); err != nil {
		t.Fatal(err)
	}
	if lookingUp(goroutines()) {
		t.Error("there is a snapshot while a name is being looked up")
	}
}

func TestReportFailsForALeak(t *testing.T) {
	stderr := os.Stderr
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	os.Stderr = null
	code := report([]string{"a leak"})
	os.Stderr = stderr
	if code != 1 {
		t.Errorf("the exit status is %d", code)
	}
	if code := report(nil); code != 0 {
		t.Errorf("without a leak the exit status is %d", code)
	}
}
