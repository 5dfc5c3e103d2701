package loop

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzLiteralAddresses resolves what needs no name server, and expects of
// ParseIPAddr, which goes a shorter way, the same answer.
func FuzzLiteralAddresses(f *testing.F) {
	for _, host := range []string{"", "1.2.3.4", "::1", "::ffff:1.2.3.4", "fe80::1%lo", "fe80::1%1", "1.2", "0x7f.1", "017", "4294967296", "1.2.3.4.5", "%", "1_0"} {
		for _, service := range []string{"", "0", "80", "65536", "http", "+1"} {
			f.Add(host, service, uint8(0), uint8(1), uint16(0))
		}
	}
	f.Add("1.2.3.4", "80", uint8(2), uint8(2), uint16(AIPassive|AIV4Mapped|AIAll|AICanonName))
	families := []int{unix.AF_UNSPEC, unix.AF_INET, unix.AF_INET6, unix.AF_UNIX}
	f.Fuzz(func(t *testing.T, host, service string, family, socktype uint8, flags uint16) {
		q := &query{host: host, service: service, AddrInfoHints: AddrInfoHints{
			Family: families[int(family)%len(families)], Type: int(socktype % 4), Flags: int(flags) | AINumericHost | AINumericServ,
		}}
		infos, err := q.resolve(context.Background())
		if (len(infos) == 0) != (err != nil) {
			t.Fatalf("%d addresses and the error %v", len(infos), err)
		}
		for _, ai := range infos {
			if ap, _, _, ok := ai.Addr.IP(); !ok || !ap.IsValid() || familyOf(ap.Addr()) != ai.Family || ai.Family != ai.Addr.Family() {
				t.Errorf("an address of family %d is %v", ai.Family, ap)
			}
		}
		if ai, ok := ParseIPAddr(host, service, q.Family, q.Type, 0); ok && flags == 0 && !slices.Contains(infos, ai) {
			t.Errorf("ParseIPAddr gives %+v, the resolver %+v, %v", ai, infos, err)
		}
	})
}

// FuzzInetAton checks the forms of inet_aton(3) against their definition: up to
// four numbers, of which the last fills what is left.
func FuzzInetAton(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "1.2.3", "1.2", "1", "0x7f000001", "010.0.0.1", "1..2", "256.1", "1.16777216", "1.2.3.4.", "-1", " 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ip, ok := parseLiteral(s)
		if want, err := netip.ParseAddr(s); err == nil {
			if !ok || ip != want {
				t.Errorf("%q is %v, %v, want %v", s, ip, ok, want)
			}
			return
		}
		if !ok {
			return
		}
		if !ip.Is4() || strings.Trim(strings.ToLower(s), "0123456789abcdefx.") != "" || strings.Count(s, ".") > 3 {
			t.Errorf("%q is taken for %v", s, ip)
		}
	})
}

// FuzzServices reads anything as /etc/services.
func FuzzServices(f *testing.F) {
	f.Add("http\t\t80/tcp\t\twww # the web\n# http 81/tcp\n\nhttp2 80/tcp\ndomain 53/udp")
	f.Add("\x00 /\r\n#\n a b c")
	f.Fuzz(func(t *testing.T, file string) {
		for key, name := range parseServices(strings.NewReader(file)) {
			if name == "" || key == "" || strings.ContainsAny(name+key, " \t\n#") {
				t.Errorf("%q is named %q", key, name)
			}
		}
	})
}

func TestTheFirstNameOfAServiceWins(t *testing.T) {
	names := parseServices(strings.NewReader("http 80/tcp www # 80/tcp\n#no 81/tcp\nlater 80/tcp\ndns\t53/udp\n"))
	if names["80/tcp"] != "http" || names["53/udp"] != "dns" || len(names) != 2 {
		t.Errorf("read %v", names)
	}
}
