//go:build integration

package transport

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-80cfe818/ringloop/loop"
)

// program returns a foreign program that a test needs. ci/peers installs it.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// pemFiles writes the identity of the server, and the authority is the same.
func pemFiles(t *testing.T) (cert, key string) {
	t.Helper()
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	id := testIDs().server
	der, err := x509.MarshalPKCS8PrivateKey(id.PrivateKey)
	check(t, err)
	check(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Certificate[0]}), 0o600))
	check(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	return cert, key
}

// foreign is a program with which a test talks over its standard streams.
type foreign struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err bytes.Buffer
}

func startForeign(t *testing.T, name string, args ...string) *foreign {
	t.Helper()
	f := &foreign{cmd: exec.Command(name, args...)}
	f.cmd.Stderr = &f.err
	in, err := f.cmd.StdinPipe()
	check(t, err)
	out, err := f.cmd.StdoutPipe()
	check(t, err)
	f.in, f.out = in, bufio.NewReader(out)
	check(t, f.cmd.Start())
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill() // if the test has failed
		_ = f.cmd.Wait()
	})
	return f
}

// say writes a line to the program.
func (f *foreign) say(text string) error {
	_, err := io.WriteString(f.in, text+"\n")
	return err
}

// hear reads lines until one contains text.
func (f *foreign) hear(text string) (string, error) {
	for {
		line, err := f.out.ReadString('\n')
		if strings.Contains(line, text) {
			return strings.TrimSpace(line), nil
		}
		if err != nil {
			return "", fmt.Errorf("waiting for %q: %w; %s", text, err, f.err.String())
		}
	}
}

func TestAnOpenSSLClientTalksToATLSServer(t *testing.T) {
	openssl := program(t, "openssl")
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			p := &recorder{}
			p.onData = func(data []byte) { check(t, p.t.Write(data)) }
			srv, port := localServer(t, co, protocolOf(p), &ServerOptions{TLS: serverTLS()})
			client := startForeign(t, openssl, "s_client", "-connect", "127.0.0.1:"+port, version, "-quiet", "-no_ign_eof")
			elsewhere(t, co, func() error {
				for _, word := range []string{"hello", "world"} {
					if err := client.say(word); err != nil {
						return err
					}
					if _, err := client.hear(word); err != nil {
						return err
					}
				}
				return client.in.Close()
			})()
			check(t, p.untilLost(t, co))
			p.want(t, "made", "eof", "lost")
			over(t, co, srv)
		}
	})
}

// Renegotiation is refused with an error that crypto/tls does not keep.
func TestAnErrorBehindDataThatPausesIsNotForgotten(t *testing.T) {
	openssl := program(t, "openssl")
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		p.onMade = func() { check(t, p.t.PauseReading()) }
		p.onData = func([]byte) { check(t, p.t.PauseReading()) }
		srv, port := localServer(t, co, protocolOf(p), &ServerOptions{TLS: serverTLS()})
		client := startForeign(t, openssl, "s_client", "-connect", "127.0.0.1:"+port, "-tls1_2")
		until(t, co, "there is a connection", func() bool { return p.t != nil })
		held := p.t.(TLSTransport).ReadBufferSize
		check(t, client.say("hello"))
		until(t, co, "the data has arrived", func() bool { return held() > 0 })
		data := held()
		check(t, client.say("R"))
		until(t, co, "the client renegotiates", func() bool { return held() > data })
		check(t, p.t.ResumeReading())
		p.untilData(t, co, "hello\n")
		turns(t, co)
		check(t, p.t.ResumeReading())
		if err := p.untilLost(t, co); err == nil {
			t.Error("the connection was lost without an error")
		}
		over(t, co, srv)
	})
}

// openSSLServer starts a server for one connection and returns its port.
func openSSLServer(t *testing.T, co *loop.Coro, args ...string) (server *foreign, port string) {
	t.Helper()
	cert, key := pemFiles(t)
	args = append([]string{"s_server", "-accept", "127.0.0.1:0", "-cert", cert, "-key", key, "-naccept", "1"}, args...)
	server = startForeign(t, program(t, "openssl"), args...)
	elsewhere(t, co, func() error {
		line, err := server.hear("ACCEPT 127.0.0.1:")
		port = line[strings.LastIndexByte(line, ':')+1:]
		return err
	})()
	return server, port
}

func TestATLSClientTalksToAnOpenSSLServer(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		_, port := openSSLServer(t, co, "-rev")
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
		check(t, err)
		check(t, tr.Write([]byte("stressed\n")))
		p.untilData(t, co, "desserts\n")
		tr.Close()
		check(t, p.untilLost(t, co))
		p.want(t, "made", "lost")
	})
}

func TestKeysAreUpdatedWhenThePeerAsks(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		server, port := openSSLServer(t, co, "-tls1_3")
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
		check(t, err)
		want := ""
		for _, line := range []string{"with the first keys", "K", "with the second keys"} {
			check(t, server.say(line))
			if line != "K" {
				want += line + "\n"
				p.untilData(t, co, want)
			}
			check(t, tr.Write([]byte("answer to "+line+"\n")))
			elsewhere(t, co, func() error { _, err := server.hear("answer to " + line); return err })()
		}
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}

// asyncioPeer is the other end in the library that this one follows. It reads a
// line, upgrades, echoes so many bytes, and says goodbye.
const asyncioPeer = `
import asyncio, ssl, sys
port, cert, key, size = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])

async def serve(reader, writer):
    assert await reader.readline() == b"STARTTLS\n"
    writer.write(b"GO\n")
    await writer.drain()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    await writer.start_tls(context)
    writer.write(await reader.readexactly(size))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    done.set_result(None)

async def connect():
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"STARTTLS\n")
    assert await reader.readline() == b"GO\n"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    await writer.start_tls(context)
    data = bytes(range(256)) * (size // 256)
    writer.write(data)
    assert await reader.readexactly(size) == data
    writer.close()
    await writer.wait_closed()
    print("equal", flush=True)

async def main():
    global done
    if port:
        return await connect()
    done = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("port %d" % server.sockets[0].getsockname()[1], flush=True)
    await done

asyncio.run(main())
`

// startPython runs asyncioPeer if Python has what it needs.
func startPython(t *testing.T, port string, size int) *foreign {
	t.Helper()
	python := program(t, "python3")
	if err := exec.Command(python, "-c", "import sys, ssl, asyncio; sys.exit(sys.version_info < (3, 11))").Run(); err != nil {
		t.Fatalf("Python 3.11 with ssl is needed: %v", err)
	}
	cert, key := pemFiles(t)
	return startForeign(t, python, "-c", asyncioPeer, port, cert, key, fmt.Sprint(size))
}

func TestStartTLSWithAnAsyncioServer(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		const size = 1 << 20
		python := startPython(t, "0", size)
		var port string
		elsewhere(t, co, func() error {
			line, err := python.hear("port ")
			port = strings.TrimPrefix(line, "port ")
			return err
		})()
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, nil)
		check(t, err)
		check(t, tr.Write([]byte("STARTTLS\n")))
		p.untilData(t, co, "GO\n")
		p.data.Reset()
		secure, err := StartTLS(co, tr, p, trusting(), nil)
		check(t, err)
		text := noise(size)
		check(t, secure.Write(text))
		p.untilData(t, co, string(text))
		check(t, p.untilLost(t, co))
		elsewhere(t, co, python.cmd.Wait)()
	})
}

func TestStartTLSWithAnAsyncioClient(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		var secure Transport
		p.onData = func(data []byte) {
			if secure != nil {
				check(t, secure.Write(data))
				return
			}
			tr := p.t
			check(t, tr.PauseReading())
			check(t, tr.Write([]byte("GO\n")))
			co.Loop().Go(func(co *loop.Coro) (err error) {
				secure, err = StartTLS(co, tr, p, serverTLS(), &StartTLSOptions{ServerSide: true})
				return err
			})
		}
		srv, port := localServer(t, co, protocolOf(p), nil)
		python := startPython(t, port, 1<<20)
		elsewhere(t, co, func() error { _, err := python.hear("equal"); return err })()
		check(t, p.untilLost(t, co))
		elsewhere(t, co, python.cmd.Wait)()
		over(t, co, srv)
	})
}
