package main

import (
	"fmt"
	"strings"
)

// table formats the comparison: per shape the best and median rate of every
// server, the median over the rounds of its rate divided by that of the first
// server in the same round, and what else was measured.
func table(all []measurement, servers []candidate, list []shape, missing []string, s *settings) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Server on %d core(s), %d rounds of %v, servers interleaved.\n", s.cores, s.rounds, s.duration)
	if len(missing) > 0 {
		fmt.Fprintf(&b, "Missing on this machine: %s.\n", strings.Join(missing, ", "))
	}
	for _, sh := range list {
		fmt.Fprintf(&b, "\n### %s\n\n| server | best msg/s | median | ratio of %s to it | p50 us | p99 us | p99.9 us | CPU s / 1M | RSS MB |\n|---|---|---|---|---|---|---|---|---|\n", sh, servers[0].name)
		base := of(all, servers[0].name, sh)
		for _, c := range servers {
			ms := of(all, c.name, sh)
			var ratios []float64
			for i := range min(len(ms), len(base)) {
				ratios = append(ratios, base[i].Rate/ms[i].Rate)
			}
			get := func(f func(measurement) float64) []float64 {
				var v []float64
				for _, m := range ms {
					v = append(v, f(m))
				}
				return v
			}
			rates := get(func(m measurement) float64 { return m.Rate })
			best := 0.0
			for _, r := range rates {
				best = max(best, r)
			}
			fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.2f | %.0f | %.0f | %.0f | %.2f | %.1f |\n", c.name, best, median(rates), median(ratios),
				median(get(func(m measurement) float64 { return m.P50 })), median(get(func(m measurement) float64 { return m.P99 })),
				median(get(func(m measurement) float64 { return m.P999 })), median(get(func(m measurement) float64 { return m.CPU })),
				median(get(func(m measurement) float64 { return m.RSS }))/1e6)
		}
	}
	return b.String()
}

// of returns the measurements of a server under a shape, by round.
func of(all []measurement, server string, sh shape) []measurement {
	var ms []measurement
	for _, m := range all {
		if m.Server == server && m.Shape == sh.String() {
			ms = append(ms, m)
		}
	}
	return ms
}
