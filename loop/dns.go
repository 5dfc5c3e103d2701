package loop

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// resolverState ends the lookups that are running when the loop closes.
type resolverState struct {
	ctx  context.Context
	stop context.CancelFunc
}

func (l *Loop) initResolver() {
	l.resolver.ctx, l.resolver.stop = context.WithCancel(context.Background())
}

func (l *Loop) closeResolver() { l.resolver.stop() }

// Getaddrinfo resolves a host and a service to addresses, on the default
// executor (loop.getaddrinfo, getaddrinfo(3)). The host is a name, a literal
// address, with a zone if need be, or "" for none, which means the loopback or,
// with AIPassive, the wildcard addresses. The service is a port number, a name
// of /etc/services in lower case, or "" for port 0. One of the two must not be empty. hints
// may be nil.
//
// Names are looked up as the net package does, and the results are in its order
// of preference. Cancelling the future ends the lookup. The error is an
// *AddrInfoError, or one of RunInExecutor. Loop's thread only.
func (l *Loop) Getaddrinfo(host, service string, hints *AddrInfoHints) *Future[[]AddrInfo] {
	q := &query{host: host, service: service}
	if hints != nil {
		q.AddrInfoHints = *hints
	}
	return runLookup(l, "Getting address info "+strconv.Quote(host)+":"+strconv.Quote(service), q.resolve)
}

// Getnameinfo finds the names of a host and a service, on the default executor
// (loop.getnameinfo, getnameinfo(3)). flags are NINumericHost and so on, or'ed.
// Where there is no name, the result is the literal address or number. The
// error is an *AddrInfoError, EAIFamily for an address that is not of the
// internet, or one of RunInExecutor. Loop's thread only.
func (l *Loop) Getnameinfo(addr backend.Addr, flags int) *Future[NameInfo] {
	return runLookup(l, "Getting name info", func(ctx context.Context) (NameInfo, error) {
		return nameInfo(ctx, &addr, flags)
	})
}

// runLookup runs fn on the default executor, with a context that ends with the
// future and with the loop. In debug mode it logs how long that took.
func runLookup[T any](l *Loop, what string, fn func(ctx context.Context) (T, error)) *Future[T] {
	ctx, cancel := context.WithCancel(l.resolver.ctx)
	debug, slow, logger := l.Debug(), l.slow, l.Logger()
	f := RunInExecutor(l, nil, func() (T, error) {
		start := time.Now()
		value, err := fn(ctx)
		if debug {
			took, level := time.Since(start), slog.LevelDebug
			if took >= slow {
				level = slog.LevelInfo
			}
			logger.Log(context.Background(), level, fmt.Sprintf("%s took %.3fms", what, float64(took)/1e6), "result", value, "error", err)
		}
		return value, err
	})
	if f.Done() { // it was refused, perhaps to another goroutine
		cancel()
		return f
	}
	f.AddDoneCallback(func(AnyFuture) { cancel() })
	return f
}

// ParseIPAddr returns the address of a literal, without a system call. ok is
// false if the resolver is to be asked: if the host is empty, a name, has a zone,
// or is not of the family; if the type is not SOCK_STREAM or SOCK_DGRAM; if proto
// is not 0, IPPROTO_TCP or IPPROTO_UDP; or if the service is not a port number
// or empty, which means port 0. family may be AF_UNSPEC. It may be called from
// any goroutine.
func ParseIPAddr(host, service string, family, socktype, proto int) (ai AddrInfo, ok bool) {
	switch {
	case proto != 0 && proto != unix.IPPROTO_TCP && proto != unix.IPPROTO_UDP:
		return AddrInfo{}, false
	case socktype == unix.SOCK_STREAM:
		proto = unix.IPPROTO_TCP
	case socktype == unix.SOCK_DGRAM:
		proto = unix.IPPROTO_UDP
	default:
		return AddrInfo{}, false
	}
	port := uint64(0)
	if service != "" {
		var err error
		if port, err = strconv.ParseUint(service, 10, 16); err != nil {
			return AddrInfo{}, false
		}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || strings.Contains(host, "%") {
		return AddrInfo{}, false
	}
	ai = AddrInfo{Family: familyOf(ip), Type: socktype, Proto: proto}
	if family != unix.AF_UNSPEC && family != ai.Family {
		return AddrInfo{}, false
	}
	ai.Addr.SetIP(netip.AddrPortFrom(ip, uint16(port)), 0, 0)
	return ai, true
}

func familyOf(ip netip.Addr) int {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
