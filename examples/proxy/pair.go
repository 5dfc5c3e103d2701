package main

import (
	"errors"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/transport"
)

const (
	// eyeballs is after which time another address of the server is tried as
	// well.
	eyeballs = 250 * time.Millisecond
	// lingerLimit is how long a side may take to read what the other one has sent
	// before it went away.
	lingerLimit = 30 * time.Second
)

// pair is a client and its connection to the server.
type pair struct {
	p          *proxy
	name       string // of the client
	start      time.Duration
	client     side
	upstream   side
	connecting loop.AnyTask // nil when it has ended
	linger     loop.TimerHandle
	err        error // the first that ended something
}

// begin is called when the client has connected.
func (pr *pair) begin() {
	pr.start = pr.p.l.Time()
	pr.name = addrString(&pr.client, transport.ExtraPeerName)
	pr.p.pairs[pr] = struct{}{}
	if pr.p.stopped {
		pr.client.abort()
		return
	}
	// Until there is somebody to send it to, what the client sends stays where
	// it is.
	pr.client.pauseReading()
	pr.connecting = pr.p.l.Go(func(co *loop.Coro) error {
		err := pr.connect(co)
		pr.connecting = nil
		if err != nil {
			pr.failed(err)
			pr.client.abort()
		}
		pr.check()
		return nil
	})
}

// connect connects to the server.
func (pr *pair) connect(co *loop.Coro) error {
	cfg := pr.p.cfg
	return loop.Timeout(co, cfg.connectTimeout, func() error {
		_, _, err := transport.CreateConnection(co, func() transport.Protocol { return &pr.upstream },
			cfg.host, cfg.port, &transport.ConnectOptions{HappyEyeballsDelay: eyeballs})
		return err
	})
}

// connected is called when the server is connected.
func (pr *pair) connected() {
	if pr.client.t == nil {
		pr.upstream.abort() // the client did not wait
		return
	}
	if pr.p.cfg.header {
		pr.upstream.write(header(&pr.client))
	}
	pr.client.resumeReading()
}

// lost is called when a side has lost its connection.
func (pr *pair) lost(s *side, err error) {
	pr.failed(err)
	if pr.connecting != nil {
		pr.connecting.Cancel("the client is gone")
	}
	switch {
	case s.other.t == nil:
	case err != nil:
		s.other.reset()
	default:
		s.other.t.Close()
		var terr error
		if pr.linger, terr = pr.p.l.CallLater(lingerLimit, s.other.cut); terr != nil {
			pr.failed(terr)
		}
	}
	pr.check()
}

// failed notes the error that the log will show.
func (pr *pair) failed(err error) {
	if pr.err == nil && !errors.Is(err, loop.ErrCancelled) {
		pr.err = err
	}
}

// cut ends everything.
func (pr *pair) cut() {
	if pr.connecting != nil {
		pr.connecting.Cancel("stopping")
	}
	pr.client.cut()
	pr.upstream.cut()
}

// check finishes the pair when nothing is left of it.
func (pr *pair) check() {
	if pr.client.t != nil || pr.upstream.t != nil || pr.connecting != nil {
		return
	}
	pr.linger.Cancel()
	pr.p.remove(pr)
	reason := "closed"
	if pr.err != nil {
		reason = pr.err.Error()
	}
	pr.p.trace("client %s: %s after %v, sent %d bytes (at most %d waiting), received %d (at most %d waiting)", pr.name, reason,
		(pr.p.l.Time() - pr.start).Round(time.Microsecond), pr.client.received, pr.upstream.peak, pr.upstream.received, pr.client.peak)
}
