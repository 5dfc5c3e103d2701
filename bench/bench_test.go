package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestShapesAreNamed(t *testing.T) {
	for want, s := range map[string]shape{
		"1x64": {1, 64, 1}, "50x(16x512)": {50, 512, 16}, "200x16K": {200, 16 << 10, 1}, "16x256K": {16, 256 << 10, 1},
	} {
		if got := s.String(); got != want {
			t.Errorf("%+v is named %q, not %q", s, got, want)
		}
	}
}

func TestPickShapesKeepsTheOrderAskedFor(t *testing.T) {
	got, err := pickShapes(shapes, "50x512,1x64")
	if err != nil || len(got) != 2 || got[0].Connections != 50 || got[1].Connections != 1 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := pickShapes(shapes, ""); err != nil || len(got) != len(shapes) {
		t.Errorf("all: %v, %v", got, err)
	}
	if _, err := pickShapes(shapes, "3x3"); err == nil || !strings.Contains(err.Error(), `"3x3"`) {
		t.Errorf("an unknown shape: %v", err)
	}
}

func TestPickCandidatesNamesTheUnknown(t *testing.T) {
	if _, err := pickCandidates(candidates("bin"), "net,nobody"); err == nil || !strings.Contains(err.Error(), `"nobody"`) {
		t.Errorf("%v", err)
	}
	got, err := pickCandidates(candidates("bin"), "gnet,net")
	if err != nil || len(got) != 2 || got[0].name != "gnet" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 100}, 3}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v is %v, not %v", c.in, got, c.want)
		}
	}
}

// sample is two rounds of two servers; the second round was twice as slow.
var (
	sampleServers = []candidate{{name: "ours <a>", kind: "ours"}, {name: "peer", kind: "go"}, {name: "absent", kind: "go"}}
	sampleShape   = shape{Connections: 50, Size: 512, Depth: 1}
	sample        = []measurement{
		{Server: "ours <a>", Shape: "50x512", Round: 0, Rate: 300, P99: 10, CPU: 3}, {Server: "peer", Shape: "50x512", Round: 0, Rate: 200, P99: 20, CPU: 6},
		{Server: "ours <a>", Shape: "50x512", Round: 1, Rate: 150, P99: 20, CPU: 4}, {Server: "peer", Shape: "50x512", Round: 1, Rate: 100, P99: 40, CPU: 8},
		{Server: "ours <a>", Shape: "50x512", Round: 2, Rate: 1000},
	}
)

func TestRatiosArePairedByRound(t *testing.T) {
	a, b := of(sample, "ours <a>", sampleShape), of(sample, "peer", sampleShape)
	if got := paired(a, b, rate); got != 1.5 {
		t.Errorf("the ratio is %v, not 1.5", got)
	}
	if got := paired(a, nil, rate); got != 0 {
		t.Errorf("the ratio to nothing is %v", got)
	}
	if got := bestOf(sample, sampleServers, sampleShape, "go", rate); got != "peer" {
		t.Errorf("the best peer is %q", got)
	}
}

func TestTableShowsRatiosAndWhatIsMissing(t *testing.T) {
	got := table(sample, sampleServers, []shape{sampleShape}, []string{"uvloop"}, &settings{cores: 1, rounds: 3})
	for _, want := range []string{
		"Missing on this machine: uvloop.", "| 50x512 | ours <a> | 1.50 (peer) | - | - | - | 0.50 | 2.00 (peer) | - |", "| peer | 200 | 150 | 1.50 |", "| absent | - |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, got)
		}
	}
}

func TestPlotIsWellFormed(t *testing.T) {
	svg := plot(sample, sampleServers, []shape{sampleShape}, &settings{name: "echo"})
	d := xml.NewDecoder(strings.NewReader(string(svg)))
	bars, labels := 0, ""
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in %s", err, svg)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if tok.Name.Local == "rect" {
				bars++
			}
		case xml.CharData:
			labels += string(tok)
		}
	}
	if bars != 1+len(sampleServers) { // and the background
		t.Errorf("%d rectangles", bars)
	}
	if !strings.Contains(labels, "ours <a>") || !strings.Contains(labels, "300/s") {
		t.Errorf("the labels are %q", labels)
	}
}

func TestParseStraceAddsUpTheCalls(t *testing.T) {
	total, most, err := parseStrace(`strace: Process 7 attached
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000600           6       100           read
 30.00    0.000300           3        10         4 futex
 10.00    0.000100           1       200           write
------ ----------- ----------- --------- --------- ----------------
100.00    0.001000           3       310         4 total
`)
	if err != nil || total != 310 || most != "write, read, futex" {
		t.Errorf("%d, %q, %v", total, most, err)
	}
	if _, _, err := parseStrace("strace: attach: Operation not permitted\n"); err == nil || !strings.Contains(err.Error(), "not permitted") {
		t.Errorf("a refusal: %v", err)
	}
}

func TestParseWrk(t *testing.T) {
	report := `  Thread Stats   Avg      Stdev     Max   +/- Stdev
  Latency Distribution
     50%  550.00us
     75%    1.20ms
     99%    2.50ms
  5000 requests in 1.10s, 5.00MB read
Requests/sec:   4545.45
`
	m, requests, err := parseWrk(report)
	if err != nil || requests != 5000 || m.Rate != 4545.45 || m.P50 != 550 || m.P99 != 2500 {
		t.Errorf("%+v, %v, %v", m, requests, err)
	}
	for _, bad := range []string{"", report + "  Non-2xx or 3xx responses: 12\n"} {
		if _, _, err := parseWrk(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestIdleTableMarksWhatWasNotMeasured(t *testing.T) {
	got := idleTable([]idleMemory{{Server: "ours <a>", Connections: 1000, Bytes: 480}}, sampleServers[:2], nil)
	if !strings.Contains(got, "| ours <a> | 480 | - |") || !strings.Contains(got, "| peer | - | - |") {
		t.Errorf("%s", got)
	}
}

func TestOtherProcessesMayHaveManyFiles(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 256
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	if err := raiseFileLimit(); err != nil {
		t.Error(err)
	}
	out, err := exec.Command("sh", "-c", "ulimit -Sn; ulimit -Hn").Output()
	if soft, hard, _ := strings.Cut(strings.TrimSpace(string(out)), "\n"); err != nil || soft != hard {
		t.Errorf("%q, %v", out, err)
	}
}

func TestAllocationsThatCannotBeCountedAreNegative(t *testing.T) {
	c := &candidate{config: "for nobody", dir: filepath.Join(t.TempDir(), "none")}
	if n, err := countAllocs(&settings{}, c, sampleShape); err == nil || n >= 0 {
		t.Errorf("%v, %v", n, err)
	}
}

// fakeClient is a client that writes text after it has begun, and returns status.
func fakeClient(t *testing.T, text string, status int) *settings {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "client")
	script := fmt.Sprintf("#!/bin/sh\necho connected\nread line\nprintf '%s'\nexit %d\n", text, status)
	if err := os.WriteFile(exe, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return &settings{name: "echo", client: exe, loadCPUs: "0"}
}

func TestLoadThatCountedNothingIsAnError(t *testing.T) {
	for _, c := range []struct {
		text   string
		status int
		want   string
	}{
		{`0 7 1000 0\n`, 0, "no message came back"},
		{`9 9 1000 3\n5 9\n`, 0, "3 bytes came back wrong"},
		{`9 9 1000 0\n5 9\n`, 4, "exit status 4"},
		{``, 0, "EOF"},
	} {
		res, err := runLoad(fakeClient(t, c.text, c.status), "127.0.0.1:1", sampleShape, func() {})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q gave %+v, %v", c.text, res, err)
		}
	}
	if res, err := runLoad(fakeClient(t, `9 12 1000 0\n5 9\n`, 0), "127.0.0.1:1", sampleShape, func() {}); err != nil || res.Messages != 9 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestAServerForPacketsAnswersWithOne(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, addr := &candidate{packets: true}, server.LocalAddr().String()
	if c.answers(addr) {
		t.Error("a server that says nothing answers")
	}
	echoed := make(chan error, 1)
	go func() {
		p := make([]byte, 16)
		n, from, err := server.ReadFrom(p)
		for ; err == nil; n, from, err = server.ReadFrom(p) {
			if _, err := server.WriteTo(p[:n], from); err != nil {
				echoed <- err
				return
			}
		}
		echoed <- nil // closed
	}()
	for !c.answers(addr) {
		if t.Context().Err() != nil {
			t.Fatal("the server never answers")
		}
	}
	if err := errors.Join(server.Close(), <-echoed); err != nil {
		t.Error(err)
	}
	if c.answers(addr) {
		t.Error("a server that is closed answers")
	}
}

func TestUnknownSubCommandsAreNamed(t *testing.T) {
	err := dispatch([]string{"dance"})
	if err == nil || !strings.Contains(err.Error(), `"dance"`) || !strings.Contains(err.Error(), "echo") {
		t.Errorf("%v", err)
	}
}

func TestManyConnectionsGetTime(t *testing.T) {
	few, many := shape{50, 64, 1}, shape{10000, 64, 1}
	if few.warmup() != 200*time.Millisecond || few.counted(time.Second) != time.Second {
		t.Errorf("50 connections: %v, %v", few.warmup(), few.counted(time.Second))
	}
	if many.warmup() != 500*time.Millisecond || many.counted(time.Second) != 1500*time.Millisecond || many.counted(time.Minute) != time.Minute {
		t.Errorf("10 000 connections: %v, %v, %v", many.warmup(), many.counted(time.Second), many.counted(time.Minute))
	}
}
