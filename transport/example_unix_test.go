package transport_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/transport"
)

// mirror sends back what it receives.
type mirror struct {
	transport.BaseStreamProtocol
	t transport.Transport
}

func (m *mirror) ConnectionMade(t transport.Transport) { m.t = t }
func (m *mirror) DataReceived(data []byte)             { _ = m.t.Write(data) }

func newMirror() transport.Protocol { return &mirror{} }

// asker waits for the answer to each of its messages.
type asker struct {
	transport.BaseStreamProtocol
	answer *loop.Future[string]
}

func (a *asker) ask(t transport.Transport, text string) *loop.Future[string] {
	a.answer = loop.CreateFuture[string](t.Loop())
	_ = t.Write([]byte(text))
	return a.answer
}

func (a *asker) DataReceived(data []byte) { _ = a.answer.SetResult(string(data)) }

// The file of a Unix server is gone when the server is closed.
func ExampleCreateUnixServer() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "echo.sock")
	runTask(func(co *loop.Coro) error {
		srv, err := transport.CreateUnixServer(co, newMirror, path, nil)
		if err != nil {
			return err
		}
		p := &asker{}
		t, _, err := transport.CreateUnixConnection(co, func() transport.Protocol { return p }, path, nil)
		if err != nil {
			return err
		}
		answer, err := p.ask(t, "hello").Await(co)
		if err != nil {
			return err
		}
		fmt.Println(answer)
		t.Close()
		srv.Close()
		err = srv.WaitClosed(co)
		_, gone := os.Stat(path)
		fmt.Println("the file is gone:", os.IsNotExist(gone))
		return err
	})
	// Output:
	// hello
	// the file is gone: true
}

// A program with its input and output as transports.
func ExampleSubprocessExec() {
	runTask(func(co *loop.Coro) error {
		lost := loop.CreateFuture[struct{}](co.Loop())
		factory := func() transport.SubprocessProtocol { return &waiting{lost: lost} }
		t, _, err := transport.SubprocessExec(co, factory, "cat", nil, nil)
		if err != nil {
			return err
		}
		stdin := t.PipeTransport(0)
		if err := stdin.Write([]byte("through cat\n")); err != nil {
			return err
		}
		stdin.Close() // cat ends when its input does
		_, err = lost.Await(co)
		return err
	})
	// Output: 1: through cat
}
