package transport

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
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

// clientHello returns how a TLS client begins.
func clientHello(t *testing.T) []byte {
	client, server := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = tls.Client(client, trusting()).Handshake()
	}()
	record := make([]byte, 5)
	ok[int](t)(io.ReadFull(server, record))
	record = append(record, make([]byte, binary.BigEndian.Uint16(record[3:]))...)
	ok[int](t)(io.ReadFull(server, record[5:]))
	check(t, server.Close())
	<-ended
	return record
}

// The application sees no task that it did not make: the handshake of a server's
// connection does not go through its task factory, is not among all tasks, and
// may be cut short by the end of the loop without a report.
func TestTheHandshakeOfAServerIsNoTaskOfTheApplication(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name), loop.WithLogger(slog.New(slog.DiscardHandler)))
		l.SetTaskFactory(func(task loop.AnyTask, _ *loop.TaskOptions) error {
			if task.Name() != "main" {
				return fmt.Errorf("there is another task %v", task)
			}
			return nil
		})
		main := loop.CreateTask(l, func(co *loop.Coro) (struct{}, error) {
			begun := false
			config := serverTLS()
			config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
				begun = true
				return nil, nil
			}
			srv, port := localServer(t, co, newEcho, &ServerOptions{TLS: config})
			tr, _, err := CreateConnection(co, newEcho, "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
			check(t, err)
			tr.Abort()

			begun = false
			client := ok[net.Conn](t)(net.Dial("tcp", "127.0.0.1:"+port))
			t.Cleanup(func() { _ = client.Close() })
			ok[int](t)(client.Write(clientHello(t)))
			until(t, co, "the handshake has begun", func() bool { return begun })
			if n := len(l.AllTasks()); n != 1 {
				t.Errorf("%d tasks", n)
			}
			srv.Close()
			return struct{}{}, nil
		}, &loop.TaskOptions{Name: "main"})
		_, err := loop.RunUntilComplete(l, main)
		check(t, err)
	})
}
