package transport

import (
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// madeAndLost counts how often a connection is made and lost.
type madeAndLost struct {
	BaseStreamProtocol
	t          Transport
	made, lost int
}

func (p *madeAndLost) ConnectionMade(t Transport) {
	p.t = t
	p.made++
}
func (p *madeAndLost) DataReceived(data []byte) { _ = p.t.Write(data) }
func (p *madeAndLost) ConnectionLost(error)     { p.lost++ }

// dieSomehow makes a connection to a TLS server and ends it in a random way.
func dieSomehow(co *loop.Coro, port string, r *rand.Rand, p *madeAndLost) error {
	if r.IntN(4) == 0 { // before the handshake is over
		s, err := sockapi.Dial(co, "tcp", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		hello := []byte{22, 3, 1, 0, 100, 1, 0, 0, 96, 3, 3}
		if err := sockapi.SendAll(co, s, hello[:r.IntN(len(hello)+1)]); err != nil {
			return err
		}
		return s.Close()
	}
	limit := patience
	if r.IntN(2) == 0 { // perhaps in the middle of it
		limit = time.Duration(1+r.IntN(20)) * time.Millisecond
	}
	var tr Transport
	err := loop.Timeout(co, limit, func() (err error) {
		tr, _, err = CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
		return err
	})
	if errors.Is(err, loop.ErrTimeout) {
		return nil
	}
	if err != nil {
		return err
	}
	_ = tr.Write(noise(r.IntN(100_000)))
	for range r.IntN(4) {
		if err := loop.Sleep(co, 0); err != nil {
			return err
		}
	}
	if r.IntN(2) == 0 {
		tr.Close()
	} else {
		tr.Abort()
	}
	return nil
}

func TestTLSConnectionsThatDieAtRandomAreMadeAndLostOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		var all []*madeAndLost
		note := func() *madeAndLost {
			p := &madeAndLost{}
			all = append(all, p)
			return p
		}
		srv, port := localServer(t, co, func() Protocol { return note() }, &ServerOptions{TLS: serverTLS()})
		r := rand.New(rand.NewPCG(1, 2))
		var tasks []*loop.Task[struct{}]
		for range 150 {
			p := note()
			tasks = append(tasks, co.Loop().Go(func(co *loop.Coro) error { return dieSomehow(co, port, r, p) }))
			if len(tasks) == 15 {
				for _, task := range tasks {
					_ = must2(task.Await(co))(t)
				}
				tasks = nil
			}
		}
		srv.Close()
		check(t, srv.WaitClosed(co))
		until(t, co, "everything that was made is lost", func() bool {
			for _, p := range all {
				if p.made != p.lost {
					return false
				}
			}
			return true
		})
		turns(t, co)
		opened := 0
		for _, p := range all {
			if p.made > 1 || p.lost != p.made {
				t.Errorf("made %d times, lost %d times", p.made, p.lost)
			}
			opened += p.made
		}
		if opened == 0 {
			t.Error("no connection was ever made")
		}
		for _, task := range co.Loop().AllTasks() {
			if task.Name() == "TLS handshake" {
				t.Errorf("left over: %v", task)
			}
		}
	})
}

func TestAPanicOfACallbackOfTheConfigurationCostsOneConnection(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		config := serverTLS()
		failing := true
		config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if failing {
				panic("no configuration")
			}
			return nil, nil
		}
		srv, port := localServer(t, co, newEcho, &ServerOptions{TLS: config})
		if _, _, err := CreateConnection(co, newEcho, "127.0.0.1", port, &ConnectOptions{TLS: trusting()}); err == nil {
			t.Error("the connection was made")
		}
		if len(*all) != 1 {
			t.Errorf("%d reports", len(*all))
		}
		failing = false
		tr, _, err := CreateConnection(co, newEcho, "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
		check(t, err)
		tr.Abort()
		over(t, co, srv)
	})
}

func TestATaskFactoryThatRefusesTheHandshakeCostsTheConnection(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, &ServerOptions{TLS: serverTLS()})
		refused := errors.New("no more tasks")
		co.Loop().SetTaskFactory(func(loop.AnyTask, *loop.TaskOptions) error { return refused })
		defer co.Loop().SetTaskFactory(nil)
		if _, _, err := CreateConnection(co, newEcho, "127.0.0.1", port, &ConnectOptions{TLS: trusting()}); err == nil {
			t.Error("the connection was made")
		}
		over(t, co, srv)
	})
}
