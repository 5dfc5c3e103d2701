package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/forbid"
)

// describeAll renders results as "family/type/proto/address%scope".
func describeAll(infos []AddrInfo) []string {
	var all []string
	for _, ai := range infos {
		ap, _, scope, ok := ai.Addr.IP()
		family := map[int]string{unix.AF_INET: "4", unix.AF_INET6: "6"}[ai.Family]
		kind := map[int]string{unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "dgram", unix.SOCK_RAW: "raw"}[ai.Type]
		s := fmt.Sprintf("%s/%s/%d/%s", family, kind, ai.Proto, ap)
		if scope != 0 {
			s += fmt.Sprintf("%%%d", scope)
		}
		if !ok || ai.Addr.Family() != ai.Family {
			s = "not an IP address: " + s
		}
		if ai.CanonName != "" {
			s += " " + ai.CanonName
		}
		all = append(all, s)
	}
	return all
}

// The wanted results are those of getaddrinfo(3) of glibc.
var addrInfoCases = []struct {
	host, service string
	hints         AddrInfoHints
	want          []string
	err           error
}{
	{"127.0.0.1", "80", AddrInfoHints{}, []string{"4/stream/6/127.0.0.1:80", "4/dgram/17/127.0.0.1:80", "4/raw/0/127.0.0.1:80"}, nil},
	{"127.0.0.1", "", AddrInfoHints{Type: unix.SOCK_STREAM}, []string{"4/stream/6/127.0.0.1:0"}, nil},
	{"127.1", "80", AddrInfoHints{Type: unix.SOCK_STREAM}, []string{"4/stream/6/127.0.0.1:80"}, nil},
	{"0x7f.0.0.010", "80", AddrInfoHints{Type: unix.SOCK_STREAM}, []string{"4/stream/6/127.0.0.8:80"}, nil},
	{"::1", "http", AddrInfoHints{Type: unix.SOCK_STREAM}, []string{"6/stream/6/[::1]:80"}, nil},
	{"127.0.0.1", "80", AddrInfoHints{Proto: unix.IPPROTO_UDP}, []string{"4/dgram/17/127.0.0.1:80"}, nil},
	{"127.0.0.1", "http", AddrInfoHints{Proto: unix.IPPROTO_TCP}, []string{"4/stream/6/127.0.0.1:80"}, nil},
	{"127.0.0.1", "", AddrInfoHints{Type: unix.SOCK_RAW, Proto: unix.IPPROTO_ICMP}, []string{"4/raw/1/127.0.0.1:0"}, nil},
	{"127.0.0.1", "", AddrInfoHints{Proto: unix.IPPROTO_ICMP}, []string{"4/raw/1/127.0.0.1:0"}, nil},
	{"127.0.0.1", "", AddrInfoHints{Proto: unix.IPPROTO_TCP}, []string{"4/stream/6/127.0.0.1:0"}, nil},
	{"", "80", AddrInfoHints{Type: unix.SOCK_STREAM}, []string{"6/stream/6/[::1]:80", "4/stream/6/127.0.0.1:80"}, nil},
	{"", "80", AddrInfoHints{Type: unix.SOCK_STREAM, Flags: AIPassive}, []string{"4/stream/6/0.0.0.0:80", "6/stream/6/[::]:80"}, nil},
	{"", "80", AddrInfoHints{Family: unix.AF_INET, Type: unix.SOCK_DGRAM, Flags: AIPassive}, []string{"4/dgram/17/0.0.0.0:80"}, nil},
	{"127.0.0.1", "80", AddrInfoHints{Family: unix.AF_INET6, Type: unix.SOCK_STREAM, Flags: AIV4Mapped}, []string{"6/stream/6/[::ffff:127.0.0.1]:80"}, nil},
	{"::ffff:1.2.3.4", "80", AddrInfoHints{Family: unix.AF_INET, Type: unix.SOCK_STREAM}, []string{"4/stream/6/1.2.3.4:80"}, nil},
	{"::ffff:1.2.3.4", "80", AddrInfoHints{Type: unix.SOCK_STREAM}, []string{"6/stream/6/[::ffff:1.2.3.4]:80"}, nil},
	{"fe80::1%5", "80", AddrInfoHints{Type: unix.SOCK_STREAM}, []string{"6/stream/6/[fe80::1]:80%5"}, nil},
	{"127.0.0.1", "80", AddrInfoHints{Type: unix.SOCK_STREAM, Flags: AICanonName}, []string{"4/stream/6/127.0.0.1:80 127.0.0.1"}, nil},
	{"127.0.0.1", "80", AddrInfoHints{Type: unix.SOCK_STREAM, Flags: AINumericHost | AINumericServ}, []string{"4/stream/6/127.0.0.1:80"}, nil},

	{"", "", AddrInfoHints{}, nil, EAINoName},
	{"", "", AddrInfoHints{Flags: AICanonName}, nil, EAINoName},
	{"127.0.0.1", "HTTP", AddrInfoHints{}, nil, EAIService},
	{"localhost", "80", AddrInfoHints{Flags: AINumericHost}, nil, EAINoName},
	{"127.0.0.1", "http", AddrInfoHints{Flags: AINumericServ}, nil, EAINoName},
	{"::1%nosuchif", "80", AddrInfoHints{}, nil, EAINoName},
	{"fe80::1%nosuchif", "80", AddrInfoHints{}, nil, EAINoName},
	{"name.invalid\x00", "80", AddrInfoHints{}, nil, EAINoName},
	{"127.0.0.1", "nosuchservice", AddrInfoHints{}, nil, EAIService},
	{"127.0.0.1", "65536", AddrInfoHints{}, nil, EAIService},
	{"127.0.0.1", "-1", AddrInfoHints{}, nil, EAIService},
	{"127.0.0.1", "80", AddrInfoHints{Type: unix.SOCK_RAW}, nil, EAIService},
	{"127.0.0.1", "80", AddrInfoHints{Proto: unix.IPPROTO_ICMP}, nil, EAIService},
	{"127.0.0.1", "80", AddrInfoHints{Type: unix.SOCK_STREAM, Proto: unix.IPPROTO_UDP}, nil, EAISockType},
	{"127.0.0.1", "80", AddrInfoHints{Type: 77}, nil, EAISockType},
	{"127.0.0.1", "80", AddrInfoHints{Family: unix.AF_INET6}, nil, EAIAddrFamily},
	{"::1", "80", AddrInfoHints{Family: unix.AF_INET}, nil, EAIAddrFamily},
	{"127.0.0.1", "80", AddrInfoHints{Family: unix.AF_UNIX}, nil, EAIFamily},
	{"127.0.0.1", "80", AddrInfoHints{Flags: 1 << 27}, nil, EAIBadFlags},
	{"", "80", AddrInfoHints{Flags: AICanonName}, nil, EAIBadFlags},
}

func TestGetaddrinfoAnswersAsTheBlockingResolver(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			for _, c := range addrInfoCases {
				infos, err := l.Getaddrinfo(c.host, c.service, &c.hints).Await(co)
				if got := describeAll(infos); !slices.Equal(got, c.want) || !errors.Is(err, c.err) {
					t.Errorf("Getaddrinfo(%q, %q, %+v):\ngot  %v, %v\nwant %v, %v", c.host, c.service, c.hints, got, err, c.want, c.err)
				}
			}
			return nil
		})
	})
}

func TestGetaddrinfoResolvesAZoneByTheNameOfAnInterface(t *testing.T) {
	ifis, err := net.Interfaces()
	if err != nil || len(ifis) == 0 {
		t.Skipf("this machine has no network interface: %v", err)
	}
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			infos, err := l.Getaddrinfo("fe80::1%"+ifis[0].Name, "80", &AddrInfoHints{Type: unix.SOCK_STREAM}).Await(co)
			want := fmt.Sprintf("6/stream/6/[fe80::1]:80%%%d", ifis[0].Index)
			if got := describeAll(infos); err != nil || len(got) != 1 || got[0] != want {
				t.Errorf("got %v, %v, want %s", got, err, want)
			}
			if err != nil {
				return err
			}
			info, err := l.Getnameinfo(infos[0].Addr, NINumericHost|NINumericServ).Await(co)
			if want := "fe80::1%" + ifis[0].Name; info.Host != want || err != nil {
				t.Errorf("Getnameinfo: %q, %v, want %q", info.Host, err, want)
			}
			return nil
		})
	})
}

func TestGetaddrinfoFindsWhatTheNetPackageFinds(t *testing.T) {
	want, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", "localhost")
	if err != nil {
		t.Skipf("this machine does not know localhost: %v", err)
	}
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			infos, err := l.Getaddrinfo("localhost", "https", &AddrInfoHints{Type: unix.SOCK_STREAM, Flags: AICanonName}).Await(co)
			if err != nil {
				return err
			}
			var got []netip.AddrPort
			for _, ai := range infos {
				ap, _, _, _ := ai.Addr.IP()
				got = append(got, ap)
			}
			for i, ip := range want {
				if len(got) != len(want) || got[i] != netip.AddrPortFrom(ip.Unmap(), 443) {
					t.Fatalf("got %v, want %v with port 443", got, want)
				}
			}
			if infos[0].CanonName == "" {
				t.Error("there is no canonical name")
			}
			return nil
		})
	})
}

func TestAnAddrInfoErrorNamesWhatWasAskedFor(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			_, err := l.Getaddrinfo("not a name", "http", nil).Await(co)
			var e *AddrInfoError
			if !errors.As(err, &e) || e.Code != EAINoName || e.Host != "not a name" || e.Service != "http" {
				t.Errorf("error %+v", err)
			}
			if s := fmt.Sprint(err); !strings.Contains(s, `"not a name"`) || !strings.Contains(s, `"http"`) {
				t.Errorf("text %q", s)
			}
			return nil
		})
	})
}

func TestErrorsOfTheResolverHaveTheirCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want EAI
	}{
		{&net.DNSError{IsNotFound: true}, EAINoName},
		{&net.DNSError{IsTemporary: true}, EAIAgain},
		{&net.DNSError{IsTimeout: true}, EAIAgain},
		{&net.DNSError{Err: "server failure"}, EAIFail},
		{errors.New("no form"), EAINoName},
	} {
		if got := lookupCode(c.err); got != c.want {
			t.Errorf("%v: code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestALiteralAddressSkipsTheResolver(t *testing.T) {
	const (
		stream, dgram = unix.SOCK_STREAM, unix.SOCK_DGRAM
		tcp, udp      = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	)
	for _, c := range []struct {
		host, service           string
		family, socktype, proto int
		want                    string // empty: the resolver is needed
	}{
		{"1.2.3.4", "1", unix.AF_INET, stream, tcp, "4/stream/6/1.2.3.4:1"},
		{"1.2.3.4", "1", unix.AF_UNSPEC, stream, 0, "4/stream/6/1.2.3.4:1"},
		{"1.2.3.4", "", unix.AF_INET, dgram, udp, "4/dgram/17/1.2.3.4:0"},
		{"1.2.3.4", "1", unix.AF_INET, stream, udp, "4/stream/6/1.2.3.4:1"},
		{"::3", "1", unix.AF_INET6, stream, tcp, "6/stream/6/[::3]:1"},
		{"::3", "1", unix.AF_UNSPEC, dgram, 0, "6/dgram/17/[::3]:1"},
		{"::3", "1", unix.AF_INET, stream, tcp, ""},
		{"1.2.3.4", "1", unix.AF_INET6, stream, tcp, ""},
		{"1.2.3.4", "1", unix.AF_INET, 0, 0, ""},
		{"1.2.3.4", "1", unix.AF_INET, unix.SOCK_RAW, 0, ""},
		{"1.2.3.4", "1", unix.AF_INET, stream, unix.IPPROTO_ICMP, ""},
		{"::3%lo0", "1", unix.AF_INET6, stream, tcp, ""},
		{"1.2.3.4", "http", unix.AF_INET, stream, tcp, ""},
		{"1.2.3.4", "65536", unix.AF_INET, stream, tcp, ""},
		{"localhost", "1", unix.AF_INET, stream, tcp, ""},
		{"", "1", unix.AF_INET, stream, tcp, ""},
	} {
		ai, ok := ParseIPAddr(c.host, c.service, c.family, c.socktype, c.proto)
		got := ""
		if ok {
			got = describeAll([]AddrInfo{ai})[0]
		}
		if got != c.want {
			t.Errorf("ParseIPAddr(%q, %q, %d, %d, %d): got %q, want %q", c.host, c.service, c.family, c.socktype, c.proto, got, c.want)
		}
	}
}

func TestParseIPAddrAllocatesNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		ParseIPAddr("192.168.100.200", "8080", unix.AF_UNSPEC, unix.SOCK_STREAM, 0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func ipAddr(s string, scope uint32) (a backend.Addr) {
	a.SetIP(netip.MustParseAddrPort(s), 0, scope)
	return a
}

func TestGetnameinfo(t *testing.T) {
	var path backend.Addr
	if err := path.SetUnix("/tmp/socket"); err != nil {
		t.Fatal(err)
	}
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			for _, c := range []struct {
				addr  backend.Addr
				flags int
				want  NameInfo
				err   error
			}{
				{ipAddr("127.0.0.1:4242", 0), NINumericHost | NINumericServ, NameInfo{"127.0.0.1", "4242"}, nil},
				{ipAddr("[::1]:80", 0), NINumericHost | NINumericServ, NameInfo{"::1", "80"}, nil},
				{ipAddr("[2001:db8::1]:80", 7), NINumericHost | NINumericServ, NameInfo{"2001:db8::1%7", "80"}, nil},
				{ipAddr("127.0.0.1:4242", 0), NINumericHost | NINameReqd, NameInfo{}, EAINoName},
				{ipAddr("127.0.0.1:4242", 0), NINumericHost | NINumericServ | NINoFQDN, NameInfo{"127.0.0.1", "4242"}, nil},
				{ipAddr("127.0.0.1:4242", 0), 1 << 20, NameInfo{}, EAIBadFlags},
				{path, 0, NameInfo{}, EAIFamily},
				{backend.Addr{}, 0, NameInfo{}, EAIFamily},
			} {
				got, err := l.Getnameinfo(c.addr, c.flags).Await(co)
				if got != c.want || !errors.Is(err, c.err) {
					t.Errorf("Getnameinfo(%v, %d): got %+v, %v, want %+v, %v", c.addr.Raw[:c.addr.Len], c.flags, got, err, c.want, c.err)
				}
			}
			return nil
		})
	})
}

func TestOnlyTheDomainOfThisMachineIsTakenAway(t *testing.T) {
	for _, c := range []struct{ host, own, want string }{
		{"db.example.org", "web.example.org", "db"},
		{"db.example.org", "web", "db.example.org"},
		{"db.other.org", "web.example.org", "db.other.org"},
		{"dbexample.org", "web.example.org", "dbexample.org"},
		{"localhost", "web.example.org", "localhost"},
	} {
		if got := withoutDomain(c.host, c.own); got != c.want {
			t.Errorf("%s on %s: %s, want %s", c.host, c.own, got, c.want)
		}
	}
}

func TestAnAddressWithoutANameAndOneThatNobodyKnowsNowDiffer(t *testing.T) {
	unknown, later := &net.DNSError{IsNotFound: true}, &net.DNSError{IsTimeout: true}
	for _, c := range []struct {
		err   error
		flags int
		want  EAI
	}{{unknown, 0, 0}, {unknown, NINameReqd, EAINoName}, {nil, NINameReqd, EAINoName}, {later, 0, EAIAgain}, {later, NINameReqd, EAIAgain}} {
		if got := nameless(c.err, c.flags); got != c.want {
			t.Errorf("%v, flags %d: %v, want %v", c.err, c.flags, got, c.want)
		}
	}
}

func TestGetnameinfoNamesHostAndService(t *testing.T) {
	names, err := net.DefaultResolver.LookupAddr(context.Background(), "127.0.0.1")
	if err != nil {
		t.Skipf("127.0.0.1 has no name here: %v", err)
	}
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			info, err := l.Getnameinfo(ipAddr("127.0.0.1:443", 0), NINameReqd).Await(co)
			if info.Host != strings.TrimSuffix(names[0], ".") || err != nil {
				t.Errorf("host %q, %v, want %q", info.Host, err, names[0])
			}
			want := "443"
			if len(services()) > 0 {
				want = "https"
			}
			if info.Service != want {
				t.Errorf("service %q, want %q", info.Service, want)
			}
			return nil
		})
	})
}

func TestCancellingALookupEndsIt(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			started, ended := make(chan struct{}), make(chan struct{})
			f := runLookup(l, "waiting", func(ctx context.Context) (int, error) {
				close(started)
				<-ctx.Done()
				close(ended)
				return 0, ctx.Err()
			})
			task := l.Go(func(co *Coro) error {
				_, err := f.Await(co)
				return err
			})
			if err := Sleep(co, 0); err != nil {
				return err
			}
			<-started
			task.Cancel("enough")
			_, err := task.Await(co)
			wantErr(t, "the awaiting task", err, ErrCancelled)
			if err := Sleep(co, 0); err != nil {
				return err
			}
			waitFor(t, ended, "the cancelled lookup")
			return nil
		})
	})
}

func TestTheLoopCanBeClosedDuringALookup(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		started, ended := make(chan struct{}), make(chan struct{})
		runLookup(l, "waiting", func(ctx context.Context) (int, error) {
			close(started)
			<-ctx.Done()
			close(ended)
			return 0, ctx.Err()
		})
		waitFor(t, started, "the lookup")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, ended, "the end of the lookup")
	})
}

func TestDebugModeLogsHowLongALookupTook(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var b strings.Builder
		l.logger = slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
		lookup := func() string {
			b.Reset()
			runMain(t, l, func(co *Coro) error {
				_, err := l.Getaddrinfo("127.0.0.1", "80", nil).Await(co)
				return err
			})
			return b.String()
		}
		if s := lookup(); s != "" {
			t.Errorf("logged without debug mode: %s", s)
		}
		l.SetDebug(true)
		l.SetSlowCallbackDuration(time.Hour)
		if s := lookup(); !strings.Contains(s, "level=DEBUG") || !strings.Contains(s, "Getting address info") || !strings.Contains(s, "[stream 127.0.0.1:80 dgram 127.0.0.1:80 raw 127.0.0.1:80]") {
			t.Errorf("a quick lookup logs %s", s)
		}
		l.SetSlowCallbackDuration(0)
		if s := lookup(); !strings.Contains(s, `level=INFO msg="Getting address info`) {
			t.Errorf("a slow lookup logs %s", s)
		}
	})
}

func TestAnAddrInfoDescribesItself(t *testing.T) {
	ai := AddrInfo{Family: unix.AF_INET6, Type: unix.SOCK_DGRAM, CanonName: "host.example"}
	ai.Addr.SetIP(netip.MustParseAddrPort("[2001:db8::1]:53"), 0, 7)
	if s := fmt.Sprintf("%v", ai); s != "dgram [2001:db8::1%7]:53 host.example" {
		t.Errorf("got %q", s)
	}
}

func TestAddrConfigNarrowsTheFamilyDown(t *testing.T) {
	addr := func(cidr string) net.Addr {
		ip, n, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		return &net.IPNet{IP: ip, Mask: n.Mask}
	}
	loopback4, loopback6 := addr("127.0.0.1/8"), addr("::1/128")
	v4, v6 := addr("192.0.2.1/24"), addr("2001:db8::1/64")
	const any, inet, inet6 = unix.AF_UNSPEC, unix.AF_INET, unix.AF_INET6
	for _, c := range []struct {
		family int
		addrs  []net.Addr
		want   int
		ok     bool
	}{
		{any, []net.Addr{loopback4, loopback6, v4, v6}, any, true},
		{any, []net.Addr{loopback4, loopback6, v4}, inet, true},
		{any, []net.Addr{loopback4, loopback6, v6}, inet6, true},
		{any, []net.Addr{loopback4, loopback6}, any, true},
		{inet, []net.Addr{loopback4, v4}, inet, true},
		{inet, []net.Addr{loopback4, v6}, inet, false},
		{inet6, []net.Addr{loopback6, v4}, inet6, false},
	} {
		if got, ok := narrow(c.family, c.addrs); got != c.want || ok != c.ok {
			t.Errorf("narrow(%d, %v): got %d, %v, want %d, %v", c.family, c.addrs, got, ok, c.want, c.ok)
		}
	}
}

func TestMappedAddressesStandInForMissingOnes(t *testing.T) {
	parse := netip.MustParseAddr
	v4, v6, mapped := parse("192.0.2.1"), parse("2001:db8::1"), parse("::ffff:192.0.2.1")
	for _, c := range []struct {
		ips  []netip.Addr
		all  bool
		want []netip.Addr
	}{
		{[]netip.Addr{v4}, false, []netip.Addr{mapped}},
		{[]netip.Addr{v4, v6}, false, []netip.Addr{v6}},
		{[]netip.Addr{v4, v6}, true, []netip.Addr{v6, mapped}},
	} {
		if got := mapToV6(c.ips, c.all); !slices.Equal(got, c.want) {
			t.Errorf("mapToV6(%v, %v): got %v, want %v", c.ips, c.all, got, c.want)
		}
	}
}

func TestANameWithoutIPv6IsMapped(t *testing.T) {
	if ips, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip4", "localhost"); err != nil || len(ips) == 0 {
		t.Skipf("localhost has no IPv4 address here: %v", err)
	}
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			infos, err := l.Getaddrinfo("localhost", "80", &AddrInfoHints{
				Family: unix.AF_INET6, Type: unix.SOCK_STREAM, Flags: AIV4Mapped | AIAll,
			}).Await(co)
			if got := describeAll(infos); !slices.Contains(got, "6/stream/6/[::ffff:127.0.0.1]:80") {
				t.Errorf("got %v, %v", got, err)
			}
			return err
		})
	})
}

func TestANameIsNotUnknownForWantOfADescriptor(t *testing.T) {
	forbid.Alone(t, func(t *testing.T) { // for what the resolver has read before
		forEachBackend(t, func(t *testing.T, l *Loop) {
			runMain(t, l, func(co *Coro) error {
				free, err := unix.Dup(0) // the lowest number that is free
				if err != nil {
					return err
				}
				_ = unix.Close(free)
				var limit unix.Rlimit
				if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
					return err
				}
				if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: limit.Max}); err != nil {
					return err
				}
				_, lookErr := l.Getaddrinfo("name.invalid", "80", nil).Await(co)
				if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
					return err
				}
				if !errors.Is(lookErr, EAIAgain) || !errors.Is(lookErr, unix.EMFILE) {
					t.Errorf("without a descriptor: %v", lookErr)
				}
				return nil
			})
		})
	})
}
