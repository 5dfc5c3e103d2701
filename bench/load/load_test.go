package load

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestQuantilesAreWithinABucketsWidth(t *testing.T) {
	var h Histogram
	for i := uint64(1); i <= 100_000; i++ {
		h.Add(i)
	}
	for _, c := range []struct {
		q    float64
		want uint64
	}{{0.5, 50_000}, {0.99, 99_000}, {0.999, 99_900}, {1, 100_000}} {
		got := h.Quantile(c.q)
		if got < c.want || got > c.want+c.want/64+1 {
			t.Errorf("quantile %v is %d, not within 1/64 above %d", c.q, got, c.want)
		}
	}
}

func TestEveryBucketHoldsItsUpperEnd(t *testing.T) {
	for _, ns := range []uint64{0, 1, 63, 64, 65, 127, 128, 1000, 1 << 20, 1<<40 + 12345} {
		i := bucket(ns)
		if up := upper(i); up < ns || bucket(up) != i || bucket(up+1) != i+1 {
			t.Errorf("%d is in bucket %d, which ends at %d (in %d); then comes %d", ns, i, up, bucket(up), bucket(up+1))
		}
	}
}

func TestMergeAddsCounts(t *testing.T) {
	var a, b Histogram
	for range 10 {
		a.Add(10)
		b.Add(50)
	}
	b.Add(7000)
	a.Merge(&b)
	if a.total != 21 || a.max != 7000 || a.Quantile(0.1) != 10 || a.Quantile(0.6) != 50 {
		t.Errorf("%d, %d, %d, %d", a.total, a.max, a.Quantile(0.1), a.Quantile(0.6))
	}
}

// echoServer echoes what transform makes of it until the test ends.
func echoServer(t *testing.T, transform func([]byte)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4<<10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					transform(buf[:n])
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// forClients runs a test with the client in Go and with the one in C, which
// only CI has to have.
func forClients(t *testing.T, test func(t *testing.T, run func(Config) (*Result, error))) {
	t.Run("Go", func(t *testing.T) { test(t, Run) })
	t.Run("C", func(t *testing.T) {
		exe := filepath.Join(t.TempDir(), "client")
		if err := BuildRing(filepath.Join("c", "client.c"), exe); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("gcc, liburing or io_uring is missing: %v", err)
		}
		test(t, func(cfg Config) (*Result, error) { return RunRing(exe, cfg) })
	})
}

// untilSomethingCame takes more time for machines that are slow just now.
func untilSomethingCame(run func(Config) (*Result, error), cfg Config) (*Result, error) {
	for {
		res, err := run(cfg)
		if err != nil || res.Total > 0 {
			return res, err
		}
		cfg.Duration *= 2
	}
}

func TestTheLoadCountsWhatComesBack(t *testing.T) {
	forClients(t, func(t *testing.T, run func(Config) (*Result, error)) {
		addr := echoServer(t, func([]byte) {})
		for _, cfg := range []Config{
			{Connections: 3, Size: 100, Depth: 1}, {Connections: 2, Size: 3000, Depth: 4}, {Connections: 9, Size: 300 << 10, Depth: 2},
		} {
			cfg.Addr, cfg.CPUs, cfg.Duration = addr, []int{0, 0}, 50*time.Millisecond
			res, err := untilSomethingCame(run, cfg)
			if err != nil {
				t.Fatal(err)
			}
			if res.Total < res.Messages || res.Mismatches != 0 || res.P50 > res.P99 || res.P99 > res.Max || res.Seconds <= 0 {
				t.Errorf("%+v gave %+v", cfg, res)
			}
		}
	})
}

func TestTheTimeOfASilentServerIsCounted(t *testing.T) {
	forClients(t, func(t *testing.T, run func(Config) (*Result, error)) {
		silent := make(chan struct{})
		addr := echoServer(t, func([]byte) { <-silent })
		t.Cleanup(func() { close(silent) })
		cfg := Config{Addr: addr, CPUs: []int{0}, Connections: 1, Size: 64, Depth: 1, Warmup: 10 * time.Millisecond, Duration: 20 * time.Millisecond}
		res, err := run(cfg)
		if err != nil || res.Messages != 0 || res.Seconds < cfg.Duration.Seconds() {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

func TestWrongBytesAreNoticed(t *testing.T) {
	forClients(t, func(t *testing.T, run func(Config) (*Result, error)) {
		addr := echoServer(t, func(p []byte) { p[0]++ })
		for _, size := range []int{64, 16 << 10} {
			cfg := Config{Addr: addr, CPUs: []int{0}, Connections: 9, Size: size, Depth: 1, Duration: 50 * time.Millisecond}
			res, err := untilSomethingCame(run, cfg)
			if err != nil || res.Mismatches == 0 {
				t.Errorf("messages of %d bytes: %+v, %v", size, res, err)
			}
		}
	})
}

func TestSharesAddUp(t *testing.T) {
	for _, cfg := range []Config{{Connections: 50, CPUs: []int{1, 2, 3}}, {Connections: 2, CPUs: []int{1, 2, 3}}, {Connections: 1, CPUs: []int{1}}} {
		sum := 0
		for i := range min(len(cfg.CPUs), cfg.Connections) {
			sum += cfg.share(i)
		}
		if sum != cfg.Connections {
			t.Errorf("%+v: %d connections", cfg, sum)
		}
	}
}

func TestAStormCountsConnections(t *testing.T) {
	addr := echoServer(t, func([]byte) {})
	res, err := RunStorm(Config{Addr: addr, Connections: 4, Size: 64, Depth: 1, Duration: 50 * time.Millisecond})
	if err != nil || res.Total == 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestEndsOfConnectionsAreErrors(t *testing.T) {
	forClients(t, func(t *testing.T, run func(Config) (*Result, error)) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, 64))
			_ = c.Close()
		}()
		_, err = run(Config{Addr: l.Addr().String(), CPUs: []int{0}, Connections: 1, Size: 64, Depth: 1, Duration: 50 * time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), "connection 0") {
			t.Errorf("%v", err)
		}
	})
}

func TestAServerThatIsNotThereIsAnError(t *testing.T) {
	forClients(t, func(t *testing.T, run func(Config) (*Result, error)) {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		_, err = run(Config{Addr: l.Addr().String(), CPUs: []int{0, 0}, Connections: 2, Size: 64, Depth: 1, Duration: 50 * time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v", err)
		}
	})
}
