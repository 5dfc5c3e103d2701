// Package zone knows the zones of IPv6 addresses.
package zone

import (
	"fmt"
	"net"
	"strconv"
)

// Index returns the number of the interface that a zone gives by name or number.
// The error names the zone.
func Index(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, fmt.Errorf("zone %q: %w", zone, err)
	}
	return uint32(ifi.Index), nil
}
