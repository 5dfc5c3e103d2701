package loop

import (
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// AddrInfo is a result of Getaddrinfo (getaddrinfo(3)).
type AddrInfo struct {
	// Family is AF_INET or AF_INET6.
	Family int
	// Type is SOCK_STREAM, SOCK_DGRAM or SOCK_RAW.
	Type int
	// Proto is IPPROTO_TCP, IPPROTO_UDP or, for SOCK_RAW, what was asked for.
	Proto int
	// CanonName is the host's official name. Only the first result has it, and
	// only with AICanonName.
	CanonName string
	// Addr is the address to connect or bind to.
	Addr backend.Addr
}

// String returns the type of the socket and the address, as in
// "stream [::1]:80", and the official name of the host if there is one.
func (ai AddrInfo) String() string {
	ap, _, scope, _ := ai.Addr.IP()
	kind := map[int]string{unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "dgram", unix.SOCK_RAW: "raw"}[ai.Type]
	s := kind + " " + netip.AddrPortFrom(zoned(ap.Addr(), scope), ap.Port()).String()
	if ai.CanonName != "" {
		s += " " + ai.CanonName
	}
	return s
}

// AddrInfoHints narrow down what Getaddrinfo returns. The zero value asks for
// everything.
type AddrInfoHints struct {
	// Family is AF_INET, AF_INET6 or, for both, AF_UNSPEC.
	Family int
	// Type is SOCK_STREAM, SOCK_DGRAM, SOCK_RAW or, for all, 0.
	Type int
	// Proto is IPPROTO_TCP, IPPROTO_UDP, any other for raw sockets, or 0 for all.
	Proto int
	// Flags are AIPassive and so on, or'ed.
	Flags int
}

// Flags of Getaddrinfo, with the values of <netdb.h>.
const (
	// AIPassive (AI_PASSIVE): no host means the wildcard addresses, to bind to,
	// instead of the loopback ones.
	AIPassive = 0x01
	// AICanonName (AI_CANONNAME): set AddrInfo.CanonName.
	AICanonName = 0x02
	// AINumericHost (AI_NUMERICHOST): the host is a literal address.
	AINumericHost = 0x04
	// AIV4Mapped (AI_V4MAPPED): if AF_INET6 is asked for and the host has no
	// IPv6 address, return its IPv4 addresses mapped into IPv6.
	AIV4Mapped = 0x08
	// AIAll (AI_ALL): with AIV4Mapped, return the mapped addresses in any case.
	AIAll = 0x10
	// AIAddrConfig (AI_ADDRCONFIG): look names up only for the families for
	// which this machine has an address besides the loopback one.
	AIAddrConfig = 0x20
	// AINumericServ (AI_NUMERICSERV): the service is a port number.
	AINumericServ = 0x400

	allAIFlags = AIPassive | AICanonName | AINumericHost | AIV4Mapped | AIAll | AIAddrConfig | AINumericServ
)

// Flags of Getnameinfo, with the values of <netdb.h>.
const (
	// NINumericHost (NI_NUMERICHOST): do not look the host's name up.
	NINumericHost = 1
	// NINumericServ (NI_NUMERICSERV): do not look the service's name up.
	NINumericServ = 2
	// NINoFQDN (NI_NOFQDN): of a host in the domain of this machine's name, only
	// what is in front of it.
	NINoFQDN = 4
	// NINameReqd (NI_NAMEREQD): fail if the host has no name.
	NINameReqd = 8
	// NIDgram (NI_DGRAM): the service is one of UDP.
	NIDgram = 16

	allNIFlags = NINumericHost | NINumericServ | NINoFQDN | NINameReqd | NIDgram
)

// NameInfo is the result of Getnameinfo.
type NameInfo struct {
	// Host is a name or a literal address, with its zone.
	Host string
	// Service is a name or a port number.
	Service string
}

// EAI is an error code of the resolver, with the values of <netdb.h>. Each code
// is an error that errors.Is finds in an AddrInfoError.
type EAI int

// The error codes of Getaddrinfo and Getnameinfo.
const (
	// EAIBadFlags (EAI_BADFLAGS): the flags are unknown or make no sense.
	EAIBadFlags EAI = -1
	// EAINoName (EAI_NONAME): the host or service is not known.
	EAINoName EAI = -2
	// EAIAgain (EAI_AGAIN): the name servers did not answer, or could not be asked
	// for want of a descriptor (EMFILE, ENFILE); later they may.
	EAIAgain EAI = -3
	// EAIFail (EAI_FAIL): the lookup failed for good.
	EAIFail EAI = -4
	// EAIFamily (EAI_FAMILY): the address family is not supported.
	EAIFamily EAI = -6
	// EAISockType (EAI_SOCKTYPE): the socket type is not supported, or not with
	// this protocol.
	EAISockType EAI = -7
	// EAIService (EAI_SERVICE): the service is not known for the socket type.
	EAIService EAI = -8
	// EAIAddrFamily (EAI_ADDRFAMILY): the host has no address of the family.
	EAIAddrFamily EAI = -9
	// EAIOverflow (EAI_OVERFLOW): an operand is out of range.
	EAIOverflow EAI = -12
)

var eaiTexts = map[EAI]string{
	EAIBadFlags: "bad flags", EAINoName: "name or service not known",
	EAIAgain: "temporary failure in name resolution", EAIFail: "non-recoverable failure in name resolution",
	EAIFamily: "address family not supported", EAISockType: "socket type not supported",
	EAIService: "service not supported for this socket type", EAIAddrFamily: "host has no address of this family",
	EAIOverflow: "operand out of range",
}

// Error describes the code.
func (e EAI) Error() string {
	if s := eaiTexts[e]; s != "" {
		return s
	}
	return "resolver error " + strconv.Itoa(int(e))
}

// AddrInfoError is the error of Getaddrinfo and Getnameinfo (socket.gaierror).
type AddrInfoError struct {
	// Call is "getaddrinfo" or "getnameinfo".
	Call string
	// Host and Service are what was asked for.
	Host, Service string
	// Code says what is wrong.
	Code EAI
	// Err is the cause, such as a *net.DNSError, or nil.
	Err error
}

// Error names the call, what was asked for, and what is wrong.
func (e *AddrInfoError) Error() string {
	s := fmt.Sprintf("%s host %q service %q: %v", e.Call, e.Host, e.Service, e.Code)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the code and the cause.
func (e *AddrInfoError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Code}
	}
	return []error{e.Code, e.Err}
}
