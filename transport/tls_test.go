package transport

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// noise returns n bytes that do not repeat themselves.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = r.Read(b)
	return b
}

func TestTLSEchoesForManyClientsAtOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, &ServerOptions{TLS: serverTLS()})
		var tasks []*loop.Task[struct{}]
		for i := range 25 {
			tasks = append(tasks, co.Loop().Go(func(co *loop.Coro) error {
				p := &recorder{}
				tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
				if err != nil {
					return err
				}
				text := noise(1000 * (i + 1))
				check(t, tr.Write(text))
				p.untilData(t, co, string(text))
				tr.Close()
				check(t, p.untilLost(t, co))
				p.want(t, "made", "lost")
				return nil
			}))
		}
		for _, task := range tasks {
			_ = must2(task.Await(co))(t)
		}
		srv.Close()
		check(t, srv.WaitClosed(co))
	})
}

func TestTLSTransfersAreCompleteInBothDirections(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := secured(t, co, p, serverTLS(), nil)
		there, back := noise(5<<20), noise(6<<20)
		got := sha256.New()
		wait := elsewhere(t, co, func() error {
			sent := make(chan error, 1)
			go func() {
				_, err := peer.Write(back)
				sent <- err
			}()
			if _, err := io.CopyN(got, peer, int64(len(there))); err != nil {
				return err
			}
			return <-sent
		})
		for rest := there; len(rest) > 0; {
			n := min(len(rest), 300_000)
			check(t, tr.Write(rest[:n]))
			rest = rest[n:]
			turns(t, co)
		}
		wait()
		until(t, co, "everything is here", func() bool { return p.data.Len() >= len(back) })
		if want := sha256.Sum256(there); !bytes.Equal(got.Sum(nil), want[:]) {
			t.Error("the peer has received something else")
		}
		if !bytes.Equal(p.data.Bytes(), back) {
			t.Error("received something else")
		}
		wait = elsewhere(t, co, peer.Close)
		check(t, p.untilLost(t, co))
		wait()
	})
}

func TestWritelinesOverTLSWritesTheConcatenation(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := secured(t, co, p, serverTLS(), nil)
		parts := [][]byte{[]byte("a"), nil, noise(200_000), []byte("z")}
		want := bytes.Join(parts, nil)
		got := make([]byte, len(want))
		check(t, tr.Writelines(parts))
		check(t, tr.Writelines(nil))
		elsewhere(t, co, func() error {
			_, err := io.ReadFull(peer, got)
			return err
		})()
		if !bytes.Equal(got, want) {
			t.Error("something else arrived")
		}
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}

func TestASilentServerEndsTheHandshakeAfterTheTimeout(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		ours, peer := blockingPair(t)
		p := &recorder{}
		_, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{
			Sock: ours, TLS: trusting(), HandshakeTimeout: 20 * time.Millisecond,
		})
		if !errors.Is(err, ErrHandshakeTimeout) || !errors.Is(err, syscall.ECONNABORTED) ||
			!strings.Contains(err.Error(), "SSL handshake is taking longer than 0.02 seconds") {
			t.Errorf("the error is %v", err)
		}
		elsewhere(t, co, func() error { _, err := io.Copy(io.Discard, peer); return err })()
		p.want(t)
		if log.count("level=") > 0 {
			t.Errorf("logged: %s", log.b.String())
		}
	})
}

func TestASilentClientIsDroppedAfterTheTimeout(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		srv, port := localServer(t, co, protocolOf(p), &ServerOptions{TLS: serverTLS(), HandshakeTimeout: 20 * time.Millisecond})
		receiveEOF(t, co, dialLocal(t, co, port))
		p.want(t)
		srv.Close()
		check(t, srv.WaitClosed(co))
	})
}

func TestFailedHandshakesOfClientsAreReportedInDebugModeOnly(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		p := &recorder{}
		srv, port := localServer(t, co, protocolOf(p), &ServerOptions{TLS: serverTLS()})
		for i, debug := range []bool{false, true} {
			co.Loop().SetDebug(debug)
			peer := dialLocal(t, co, port)
			check(t, sockapi.SendAll(co, peer, []byte("GET / HTTP/1.0\r\n\r\n")))
			until(t, co, "the server has closed", func() bool {
				b, err := sockapi.Recv(co, peer, 100)
				return err != nil || len(b) == 0
			})
			until(t, co, "it is reported", func() bool { return len(*all) == i })
		}
		co.Loop().SetDebug(false)
		if got := (*all)[0].Message; got != "Error on transport creation for incoming connection" {
			t.Errorf("reported: %s", got)
		}
		var header tls.RecordHeaderError
		if !errors.As((*all)[0].Exception, &header) {
			t.Errorf("reported: %v", (*all)[0].Exception)
		}
		p.want(t)
		srv.Close()
		check(t, srv.WaitClosed(co))
	})
}

func TestAPeerThatGoesDuringTheHandshakeResetsIt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, peer := blockingPair(t)
		wait := elsewhere(t, co, func() error {
			if _, err := peer.Read(make([]byte, 5)); err != nil {
				return err
			}
			return peer.CloseWrite()
		})
		p := &recorder{}
		_, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours, TLS: trusting()})
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the error is %v", err)
		}
		wait()
		p.want(t)
	})
}

func TestCancellingAHandshakeClosesTheSocketAndReportsNothing(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		ours, peer := blockingPair(t)
		p := &recorder{}
		task := co.Loop().Go(func(co *loop.Coro) error {
			_, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours, TLS: trusting()})
			return err
		})
		elsewhere(t, co, func() error { _, err := peer.Read(make([]byte, 5)); return err })()
		task.Cancel("enough")
		if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("the error is %v", err)
		}
		elsewhere(t, co, func() error { _, err := io.Copy(io.Discard, peer); return err })()
		p.want(t)
		if log.count("level=") > 0 {
			t.Errorf("logged: %s", log.b.String())
		}
	})
}

func TestAHandshakeCancelledBeforeItBeginsClosesTheSocket(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for steps := range 4 {
			ours, peer := blockingPair(t)
			p := &recorder{}
			task := co.Loop().Go(func(co *loop.Coro) error {
				_, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours, TLS: trusting()})
				return err
			})
			for range steps {
				check(t, loop.Sleep(co, 0))
			}
			task.Cancel("enough")
			if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Errorf("after %d turns: the error is %v", steps, err)
			}
			if steps == 0 {
				check(t, ours.Close()) // it never was the transport's
			}
			elsewhere(t, co, func() error { _, err := io.Copy(io.Discard, peer); return err })()
			p.want(t)
		}
	})
}

func TestTimeoutsOfTLSMustBePositive(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		tr, _ := joined(t, co, &recorder{})
		for what, call := range map[string]func(handshake, shutdown time.Duration) error{
			"CreateConnection": func(h, s time.Duration) error {
				_, _, err := CreateConnection(co, newEcho, "127.0.0.1", "1", &ConnectOptions{TLS: trusting(), HandshakeTimeout: h, ShutdownTimeout: s})
				return err
			},
			"CreateServer": func(h, s time.Duration) error {
				_, err := CreateServer(co, newEcho, nil, "0", &ServerOptions{TLS: serverTLS(), HandshakeTimeout: h, ShutdownTimeout: s})
				return err
			},
			"StartTLS": func(h, s time.Duration) error {
				_, err := StartTLS(co, tr, newEcho(), trusting(), &StartTLSOptions{HandshakeTimeout: h, ShutdownTimeout: s})
				return err
			},
			"StartTLS of a server": func(h, s time.Duration) error {
				_, err := StartTLS(co, tr, newEcho(), serverTLS(), &StartTLSOptions{ServerSide: true, HandshakeTimeout: h, ShutdownTimeout: s})
				return err
			},
		} {
			for _, err := range []error{call(-1, 0), call(0, -1)} {
				if !errors.Is(err, loop.ErrInvalidArgument) {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
		tr.Abort()
	})
}

func TestRenegotiationIsRefused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		config := trusting()
		config.Renegotiation = tls.RenegotiateFreelyAsClient
		_, _, err := CreateConnection(co, newEcho, "127.0.0.1", "1", &ConnectOptions{TLS: config})
		if !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestACertificateThatIsNotTrustedFailsTheConnectionAndTheServerLearnsWhy(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for what, test := range map[string]struct {
			opts ConnectOptions
			want func(error) bool
		}{
			"unknown authority": {
				ConnectOptions{TLS: &tls.Config{RootCAs: x509.NewCertPool()}, ServerHostname: "localhost"},
				func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) },
			},
			"wrong name": {
				ConnectOptions{TLS: trusting(), ServerHostname: "elsewhere.test"},
				func(err error) bool { return errors.As(err, new(x509.HostnameError)) },
			},
			"any name, unknown authority": {
				ConnectOptions{TLS: &tls.Config{RootCAs: x509.NewCertPool()}, AnyHostname: true},
				func(err error) bool { return errors.As(err, new(x509.UnknownAuthorityError)) },
			},
		} {
			ours, raw := blockingPair(t)
			wait := elsewhere(t, co, func() error {
				err := tls.Server(raw, serverTLS()).Handshake()
				if err == nil || !strings.Contains(err.Error(), "bad certificate") && !strings.Contains(err.Error(), "unknown certificate authority") {
					return errors.New("the server has got " + errText(err))
				}
				return nil
			})
			p := &recorder{}
			test.opts.Sock = ours
			_, _, err := CreateConnection(co, protocolOf(p), "", "", &test.opts)
			if !test.want(err) {
				t.Errorf("%s: %v", what, err)
			}
			wait()
			p.want(t)
		}
	})
}

func TestTheNameOfTheServerIsTheOptionsOrTheConfigurationsOrTheHost(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		var asked string
		config := serverTLS()
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			asked = hello.ServerName
			return nil, nil
		}
		srv, port := localServer(t, co, newEcho, &ServerOptions{TLS: config})
		nameless := &tls.Config{RootCAs: testIDs().pool}
		for i, test := range []struct {
			opts ConnectOptions
			want string
		}{
			{ConnectOptions{TLS: trusting(), ServerHostname: "other.test"}, "other.test"},
			{ConnectOptions{TLS: trusting()}, "localhost"},
			{ConnectOptions{TLS: nameless}, ""}, // an IP address is not sent
			{ConnectOptions{TLS: nameless, AnyHostname: true}, ""},
		} {
			asked = "nothing"
			tr, _, err := CreateConnection(co, newEcho, "127.0.0.1", port, &test.opts)
			if err != nil {
				t.Errorf("test %d: %v", i, err)
				continue
			}
			if asked != test.want {
				t.Errorf("test %d: asked for %q, want %q", i, asked, test.want)
			}
			tr.Abort()
		}
		over(t, co, srv)
	})
}

func TestClientCertificatesALPNAndResumptionWork(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		config := serverTLS()
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, testIDs().pool
		config.NextProtos = []string{"h2", "ringloop"}
		client := trusting()
		client.Certificates = []tls.Certificate{testIDs().client}
		client.NextProtos = []string{"ringloop"}
		client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
		srv, port := localServer(t, co, newEcho, &ServerOptions{TLS: config})
		for _, resumed := range []bool{false, true} {
			p := &recorder{}
			tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{TLS: client})
			check(t, err)
			check(t, tr.Write([]byte("hello"))) // the session's ticket comes with the answer
			p.untilData(t, co, "hello")
			state := tr.(TLSTransport).ConnectionState()
			if state.NegotiatedProtocol != "ringloop" || state.DidResume != resumed {
				t.Errorf("protocol %q, resumed %v, want resumed %v", state.NegotiatedProtocol, state.DidResume, resumed)
			}
			for _, s := range srv.clients() {
				cert, ok := s.ExtraInfo(ExtraPeerCert)
				if c, isCert := cert.(*x509.Certificate); !ok || !isCert || c.Subject.CommonName != "client" {
					t.Errorf("the server knows %v of the client", cert)
				}
			}
			tr.Close()
			check(t, p.untilLost(t, co))
			until(t, co, "the server has lost it too", func() bool { return len(srv.clients()) == 0 })
		}
		over(t, co, srv)
	})
}

func TestAClientWithoutTheRequiredCertificateIsTurnedAway(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		config := serverTLS()
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, testIDs().pool
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config.MaxVersion = version
			server := &recorder{}
			srv, port := localServer(t, co, protocolOf(server), &ServerOptions{TLS: config})
			p := &recorder{}
			_, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
			if err == nil {
				// In TLS 1.3 the client has finished before the server looks.
				err = p.untilLost(t, co)
			}
			if !strings.Contains(errText(err), "remote error: tls: ") {
				t.Errorf("%s: %v", tls.VersionName(version), err)
			}
			server.want(t)
			over(t, co, srv)
		}
	})
}

func TestExtraInfoOfTLSDefersToTheRawTransport(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		config := trusting()
		tr, peer := secured(t, co, p, serverTLS(), &ConnectOptions{TLS: config})
		check := func(when string) {
			t.Helper()
			if v, ok := tr.ExtraInfo(ExtraSSLContext); !ok || v != any(config) {
				t.Errorf("%s: the context is %v", when, v)
			}
			if v, _ := tr.ExtraInfo(ExtraCipher); v.(TLSCipher).Version != "TLS 1.3" || v.(TLSCipher).Bits < 128 {
				t.Errorf("%s: the cipher is %v", when, v)
			}
			if v, ok := tr.ExtraInfo(ExtraCompression); !ok || v != nil {
				t.Errorf("%s: the compression is %v, %v", when, v, ok)
			}
			if v, _ := tr.ExtraInfo(ExtraSSLObject); !v.(tls.ConnectionState).HandshakeComplete {
				t.Errorf("%s: the state is %v", when, v)
			}
			if v, _ := tr.ExtraInfo(ExtraPeerCert); v.(*x509.Certificate).Subject.CommonName != "server" {
				t.Errorf("%s: the certificate is %v", when, v)
			}
			if v, ok := tr.ExtraInfo(ExtraSocket); !ok || v.(*TransportSocket) == nil {
				t.Errorf("%s: the socket is %v", when, v)
			}
			if v, ok := tr.ExtraInfo("nonsense"); ok {
				t.Errorf("%s: nonsense is %v", when, v)
			}
		}
		check("open")
		tr.Close()
		check("closing")
		elsewhere(t, co, peer.Close)()
		if err := p.untilLost(t, co); err != nil {
			t.Error(err)
		}
		turns(t, co)
		check("closed")
		if tr.Protocol() != nil || tr.IsReading() || !tr.IsClosing() || tr.WriteBufferSize() != 0 || tr.ReadBufferSize() != 0 {
			t.Error("a getter is wrong after the end")
		}
	})
}

func TestCallbacksOfTheConfigurationKnowTheAddresses(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		var local, remote string
		config := serverTLS()
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			local, remote = hello.Conn.LocalAddr().String(), hello.Conn.RemoteAddr().String()
			return nil, nil
		}
		srv, port := localServer(t, co, newEcho, &ServerOptions{TLS: config})
		tr, _, err := CreateConnection(co, newEcho, "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
		check(t, err)
		ours, _ := tr.ExtraInfo(ExtraSockName)
		if local != "127.0.0.1:"+port || remote != ours.(Addr).String() {
			t.Errorf("local %s, remote %s, and the client is %v", local, remote, ours)
		}
		tr.Abort()
		over(t, co, srv)

		path := filepath.Join(t.TempDir(), "s")
		unixSrv, err := CreateUnixServer(co, newEcho, path, &UnixServerOptions{TLS: config})
		check(t, err)
		tr, _, err = CreateUnixConnection(co, newEcho, path, &UnixConnectOptions{TLS: trusting()})
		check(t, err)
		if local != path || remote != "" {
			t.Errorf("local %q, remote %q", local, remote)
		}
		tr.Abort()
		over(t, co, unixSrv)
	})
}

func TestTheCipherOfTLSIsDescribed(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for id, want := range map[uint16]TLSCipher{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       {"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS 1.2", 128},
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       {"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS 1.2", 256},
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: {"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS 1.2", 256},
		} {
			config := serverTLS()
			config.MaxVersion, config.CipherSuites = tls.VersionTLS12, []uint16{id}
			p := &recorder{}
			tr, _ := secured(t, co, p, config, nil)
			if got, _ := tr.ExtraInfo(ExtraCipher); got != any(want) {
				t.Errorf("the cipher is %v, want %v", got, want)
			}
			if tr.ConnectionState().CipherSuite != id || tr.Loop() != co.Loop() || tr.Protocol() != p {
				t.Error("a getter is wrong")
			}
			for _, state := range []string{"open", "closing"} {
				if s := fmt.Sprint(tr); !strings.HasPrefix(s, "<TLS "+state+" on <Stream ") {
					t.Errorf("%s: %s", state, s)
				}
				tr.Close()
			}
			tr.Abort()
			check(t, p.untilLost(t, co))
		}
	})
}

func TestWriteEOFIsNotSupportedByTLS(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		tr, _ := secured(t, co, &recorder{}, serverTLS(), nil)
		if err := tr.WriteEOF(); !errors.Is(err, ErrUnsupported) || tr.CanWriteEOF() {
			t.Errorf("WriteEOF: %v, CanWriteEOF: %v", err, tr.CanWriteEOF())
		}
		tr.Abort()
	})
}

func TestAnEmptyWriteOverTLSSendsNothing(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		tr, _ := secured(t, co, &recorder{}, serverTLS(), nil)
		check(t, tr.Write(nil))
		if n := tr.WriteBufferSize(); n != 0 {
			t.Errorf("%d bytes are buffered", n)
		}
		tr.Abort()
	})
}

func errText(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

func TestAServersTLSWithoutACertificateIsRefusedAtOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		path := filepath.Join(t.TempDir(), "s")
		ours, _ := blockingPair(t)
		defer ours.Close()
		p := &recorder{}
		tr, _ := joined(t, co, p)
		calls := map[string]func(config *tls.Config) error{
			"CreateServer": func(config *tls.Config) error {
				_, err := CreateServer(co, mustNotCall(t), []string{"127.0.0.1"}, "0", &ServerOptions{TLS: config})
				return err
			},
			"CreateUnixServer": func(config *tls.Config) error {
				_, err := CreateUnixServer(co, mustNotCall(t), path, &UnixServerOptions{TLS: config})
				return err
			},
			"ConnectAcceptedSocket": func(config *tls.Config) error {
				_, _, err := ConnectAcceptedSocket(co, mustNotCall(t), ours, &AcceptedOptions{TLS: config})
				return err
			},
			"StartTLS": func(config *tls.Config) error {
				_, err := StartTLS(co, tr, p, config, &StartTLSOptions{ServerSide: true})
				return err
			},
		}
		for what, call := range calls {
			// What a client's configuration has is of no use to a server.
			for _, config := range []*tls.Config{{}, trusting()} {
				if err := call(config); !errors.Is(err, loop.ErrInvalidArgument) || !strings.Contains(err.Error(), "TLS: the configuration of a server needs Certificates") {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
		if exists(path) || ours.Fd() < 0 || tr.IsClosing() {
			t.Error("a refused call has made the file, taken the socket or closed the connection")
		}
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestAServersTLSMayChooseItsCertificateLater(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for what, config := range map[string]*tls.Config{
			"GetCertificate": {GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return &testIDs().server, nil
			}},
			"GetConfigForClient": {GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
				return serverTLS(), nil
			}},
		} {
			srv, port := localServer(t, co, newEcho, &ServerOptions{TLS: config})
			p := &recorder{}
			tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{TLS: trusting(), AnyHostname: true})
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			tr.Close()
			check(t, p.untilLost(t, co))
			over(t, co, srv)
		}
	})
}
