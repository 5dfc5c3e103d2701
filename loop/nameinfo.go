package loop

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/seed-80cfe818/ringloop/backend"
)

// nameInfo finds the names of an address. It runs on a goroutine of the
// executor.
func nameInfo(ctx context.Context, addr *backend.Addr, flags int) (NameInfo, error) {
	fail := func(host string, code EAI, cause error) (NameInfo, error) {
		return NameInfo{}, &AddrInfoError{Call: "getnameinfo", Host: host, Code: code, Err: cause}
	}
	if flags&^allNIFlags != 0 {
		return fail("", EAIBadFlags, nil)
	}
	ap, _, scope, ok := addr.IP()
	if !ok {
		return fail("", EAIFamily, nil)
	}
	info := NameInfo{Host: zoned(ap.Addr(), scope).String(), Service: strconv.Itoa(int(ap.Port()))}
	if flags&NINumericServ == 0 {
		if name := serviceName(ap.Port(), flags&NIDgram != 0); name != "" {
			info.Service = name
		}
	}
	if flags&NINumericHost != 0 {
		if flags&NINameReqd != 0 {
			return fail(info.Host, EAINoName, nil)
		}
		return info, nil
	}
	names, err := net.DefaultResolver.LookupAddr(ctx, ap.Addr().Unmap().String())
	switch {
	case len(names) > 0:
		info.Host = strings.TrimSuffix(names[0], ".")
		if flags&NINoFQDN != 0 {
			own, _ := os.Hostname()
			info.Host = withoutDomain(info.Host, own)
		}
	case ctx.Err() != nil:
		return fail(info.Host, EAIAgain, err)
	default:
		if code := nameless(err, flags); code != 0 {
			return fail(info.Host, code, err)
		}
	}
	return info, nil
}

// withoutDomain takes the domain of this machine's own name away from a host's.
func withoutDomain(host, own string) string {
	_, domain, ok := strings.Cut(own, ".")
	if !ok {
		return host
	}
	return strings.TrimSuffix(host, "."+domain)
}

// nameless says what it means that an address has no name, 0 if that is no error:
// nobody knows for now, or somebody insists on one.
func nameless(err error, flags int) EAI {
	switch code := lookupCode(err); {
	case code == EAIAgain:
		return EAIAgain
	case flags&NINameReqd != 0:
		return EAINoName
	}
	return 0
}

// zoned returns an address with the zone that a scope stands for: the name of
// the interface, for the addresses of a link, or the number.
func zoned(ip netip.Addr, scope uint32) netip.Addr {
	if scope == 0 || ip.Is4() {
		return ip
	}
	if linkScoped(ip) {
		if ifi, err := net.InterfaceByIndex(int(scope)); err == nil {
			return ip.WithZone(ifi.Name)
		}
	}
	return ip.WithZone(strconv.FormatUint(uint64(scope), 10))
}

// services holds the names in /etc/services by port and protocol, as in
// "80/tcp". It is empty where there is no such file.
var services = sync.OnceValue(func() map[string]string {
	f, err := os.Open("/etc/services")
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseServices(f)
})

// parseServices reads a file in the form of services(5). Of several names of a
// port the first one counts.
func parseServices(r io.Reader) map[string]string {
	names := map[string]string{}
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if fields := strings.Fields(line); len(fields) >= 2 && names[fields[1]] == "" {
			names[fields[1]] = fields[0]
		}
	}
	return names
}

// serviceName returns the name of a port, "" if it has none.
func serviceName(port uint16, udp bool) string {
	key := strconv.Itoa(int(port)) + "/tcp"
	if udp {
		key = strconv.Itoa(int(port)) + "/udp"
	}
	return services()[key]
}
