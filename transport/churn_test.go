package transport

import (
	"bytes"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/loop"
)

// mayfly is a protocol that echoes for some time, or sends and waits for the
// echo, and then dies in one way or another.
type mayfly struct {
	churn *churn
	t     Transport
	sends bool // it is the client
	life  int  // how many times it receives before it dies
	end   ending
	sent  bytes.Buffer
	got   bytes.Buffer
	made  int
	lost  int
	over  *loop.Future[struct{}] // of clients: done when the connection is lost
}

// ending is how a connection dies.
type ending int

const (
	closes ending = iota
	aborts
	resets
	halfCloses
	writesAndCloses
	pausesAndAborts
	leavesItToThePeer
	endings
)

// churn is what the mayflies of a test share.
type churn struct {
	t       *testing.T
	rnd     *rand.Rand
	flies   []*mayfly
	message []byte
}

func (c *churn) fly(sends bool) *mayfly {
	m := &mayfly{churn: c, sends: sends, life: c.rnd.IntN(4), end: ending(c.rnd.IntN(int(endings)))}
	if !sends && (c.rnd.IntN(3) != 0 || m.end == leavesItToThePeer) {
		m.end, m.life = leavesItToThePeer, math.MaxInt
	}
	if sends && m.end == leavesItToThePeer {
		m.end = closes
	}
	c.flies = append(c.flies, m)
	return m
}

func (m *mayfly) ConnectionMade(t Transport) {
	m.t = t
	m.made++
	if m.sends {
		m.send()
		m.age()
	}
}

func (m *mayfly) ConnectionLost(error) {
	m.lost++
	if m.over != nil {
		check(m.churn.t, m.over.SetResult(struct{}{}))
	}
}

// send sends between a byte and more than the high water mark.
func (m *mayfly) send() {
	n := 1 + m.churn.rnd.IntN(100)
	if m.churn.rnd.IntN(20) == 0 {
		n = 1 + m.churn.rnd.IntN(len(m.churn.message))
	}
	m.write(m.churn.message[len(m.churn.message)-n:])
}

func (m *mayfly) write(data []byte) {
	m.sent.Write(data)
	if err := m.t.Write(data); err != nil {
		m.churn.t.Errorf("write: %v", err)
	}
}

func (m *mayfly) DataReceived(data []byte) {
	if m.made != 1 || m.lost != 0 {
		m.churn.t.Errorf("data of a connection that was made %d times and lost %d times", m.made, m.lost)
	}
	m.got.Write(data)
	switch {
	case m.life < 0:
	case m.sends:
		m.send()
	default:
		m.write(data)
	}
	m.age()
}

// EOFReceived leaves it to the transport to close, or does so itself.
func (m *mayfly) EOFReceived() bool {
	if m.churn.rnd.IntN(2) == 0 {
		return false
	}
	m.t.Close()
	return true
}

// age counts, and dies in the end.
func (m *mayfly) age() {
	m.life--
	if m.life >= 0 {
		return
	}
	switch m.end {
	case closes:
		m.t.Close()
	case aborts:
		m.t.Abort()
	case resets:
		m.reset()
	case halfCloses:
		if err := m.t.WriteEOF(); err != nil {
			m.churn.t.Errorf("write EOF: %v", err)
		}
		m.end = leavesItToThePeer
	case writesAndCloses:
		m.end = closes
		if m.sends {
			m.send()
		}
		m.t.Close()
	case pausesAndAborts:
		check(m.churn.t, m.t.PauseReading())
		m.end = closes
		if _, err := m.t.Loop().CallSoon(m.t.Abort); err != nil {
			m.churn.t.Error(err)
		}
	case leavesItToThePeer:
	}
}

// reset makes the kernel reset the connection.
func (m *mayfly) reset() {
	view, _ := m.t.ExtraInfo(ExtraSocket)
	if fd := view.(*TransportSocket).Fd(); fd >= 0 {
		check(m.churn.t, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
	}
	m.t.Abort()
}

// live lets n clients live and die, one after the other.
func (c *churn) live(co *loop.Coro, n int, connect func(co *loop.Coro, factory func() Protocol) error) error {
	for range n {
		m := c.fly(true)
		m.over = loop.CreateFuture[struct{}](co.Loop())
		if err := connect(co, protocolOf(m)); err != nil {
			return err
		}
		if _, err := m.over.Await(co); err != nil {
			return err
		}
		if !bytes.HasPrefix(m.sent.Bytes(), m.got.Bytes()) {
			c.t.Errorf("%d bytes came back that are not the first of the %d that were sent", m.got.Len(), m.sent.Len())
		}
		m.sent, m.got = bytes.Buffer{}, bytes.Buffer{}
	}
	return nil
}

func TestThousandsOfConnectionsDieAtRandomAndEachIsLostOnce(t *testing.T) {
	const together = 100
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	inTask(t, func(t *testing.T, co *loop.Coro) {
		before := ok[map[int]string](t)(leaktest.FDs())
		c := &churn{t: t, rnd: rand.New(rand.NewPCG(1, 2)), message: make([]byte, 2*defaultHigh)}
		_, _ = rand.NewChaCha8([32]byte{}).Read(c.message)
		path := filepath.Join(t.TempDir(), "churn")
		factory := func() Protocol { return c.fly(false) }
		tcp, port := localServer(t, co, factory, &ServerOptions{Backlog: together})
		local := ok[*Server](t)(CreateUnixServer(co, factory, path, &UnixServerOptions{Backlog: together}))
		var tasks []*loop.Task[struct{}]
		for i := range together {
			connect := func(co *loop.Coro, factory func() Protocol) (err error) {
				_, _, err = CreateConnection(co, factory, "127.0.0.1", port, nil)
				return err
			}
			if i%4 == 0 {
				connect = func(co *loop.Coro, factory func() Protocol) (err error) {
					_, _, err = CreateUnixConnection(co, factory, path, nil)
					return err
				}
			}
			tasks = append(tasks, co.Loop().Go(func(co *loop.Coro) error { return c.live(co, n/together, connect) }))
		}
		for _, task := range tasks {
			_, err := task.Await(co)
			check(t, err)
		}
		tcp.Close()
		local.Close()
		check(t, tcp.WaitClosed(co))
		check(t, local.WaitClosed(co))
		clients := 0
		for _, m := range c.flies {
			if m.sends {
				clients++
			}
			if m.made != 1 || m.lost != 1 {
				t.Errorf("a connection (client: %v) was made %d times and lost %d times", m.sends, m.made, m.lost)
			}
		}
		t.Logf("%d protocols of clients, %d of servers", clients, len(c.flies)-clients)
		if clients != n || len(c.flies) < n+n/2 {
			t.Errorf("%d protocols of clients and %d of servers, want %d and about as many", clients, len(c.flies)-clients, n)
		}
		until(t, co, "every descriptor is closed", func() bool {
			return maps.Equal(before, ok[map[int]string](t)(leaktest.FDs()))
		})
	})
}
