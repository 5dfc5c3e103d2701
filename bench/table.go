package main

import (
	"fmt"
	"slices"
	"strings"
)

// table formats the comparison: per shape the best and median rate of every
// server, the median over the rounds of the first server's rate divided by its
// rate in the same round, and what else was measured.
func table(all []measurement, servers []candidate, list []shape, missing []string, s *settings) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Server on %d core(s), %d rounds of %v, servers interleaved. %s\n", s.cores, s.rounds, s.duration, s.loadBy())
	writeMissing(&b, missing)
	leads(&b, all, servers, list)
	for _, sh := range list {
		fmt.Fprintf(&b, "\n### %s\n\n| server | best per s | median per s | ratio of %s to it | p50 us | p99 us | p99.9 us | CPU s / 1M | RSS MB |\n|---|---|---|---|---|---|---|---|---|\n", sh, servers[0].name)
		for _, c := range servers {
			ms := of(all, c.name, sh)
			if len(ms) == 0 {
				fmt.Fprintf(&b, "| %s | - | - | - | - | - | - | - | - |\n", c.name)
				continue
			}
			mid := func(f func(measurement) float64) float64 { return median(each(ms, f)) }
			rates := each(ms, rate)
			fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.2f | %.0f | %.0f | %s | %.2f | %.1f |\n", c.name, slices.Max(rates), median(rates),
				paired(of(all, servers[0].name, sh), ms, rate), mid(func(m measurement) float64 { return m.P50 }),
				mid(func(m measurement) float64 { return m.P99 }), p999(mid(func(m measurement) float64 { return m.P999 })),
				mid(func(m measurement) float64 { return m.CPU }), mid(func(m measurement) float64 { return m.RSS })/1e6)
		}
	}
	return b.String()
}

// p999 formats the p99.9, which wrk does not report.
func p999(us float64) string {
	if us == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", us)
}

// leads formats, for every server of ours, the median of the paired ratios to
// the best of every other kind, by median rate.
func leads(b *strings.Builder, all []measurement, servers []candidate, list []shape) {
	kinds := []string{"go", "floor", "c", "python"}
	titles := map[string]string{"go": "best Go peer", "floor": "best C floor", "c": "best C program", "python": "best Python"}
	b.WriteString("\n### Ratios\n\nMedian of paired ratios of rates; above 1 ours is faster. p99 is ours divided by the best Go peer's. CPU is the processor time per message of the thriftiest Go peer, or C floor, divided by ours; above 1 ours takes less.\n\n| shape | ours |")
	for _, k := range kinds {
		fmt.Fprintf(b, " / %s |", titles[k])
	}
	b.WriteString(" p99 | CPU, Go | CPU, floor |\n|---|---|" + strings.Repeat("---|", len(kinds)+3) + "\n")
	for _, sh := range list {
		for _, c := range servers {
			ms := of(all, c.name, sh)
			if c.kind != "ours" || len(ms) == 0 {
				continue
			}
			fmt.Fprintf(b, "| %s | %s |", sh, c.name)
			for _, k := range kinds {
				peer := bestOf(all, servers, sh, k, rate)
				if peer == "" {
					b.WriteString(" - |")
					continue
				}
				fmt.Fprintf(b, " %.2f (%s) |", paired(ms, of(all, peer, sh), rate), peer)
			}
			p99 := "-"
			if peer := bestOf(all, servers, sh, "go", rate); peer != "" {
				p99 = fmt.Sprintf("%.2f", paired(ms, of(all, peer, sh), func(m measurement) float64 { return m.P99 }))
			}
			fmt.Fprintf(b, " %s |", p99)
			for _, k := range []string{"go", "floor"} {
				peer := bestOf(all, servers, sh, k, thrift)
				if peer == "" {
					b.WriteString(" - |")
					continue
				}
				fmt.Fprintf(b, " %.2f (%s) |", paired(ms, of(all, peer, sh), thrift), peer)
			}
			b.WriteString("\n")
		}
	}
}

// bestOf returns the server of a kind with the highest median of a value, ""
// if there is none.
func bestOf(all []measurement, servers []candidate, sh shape, kind string, value func(measurement) float64) (name string) {
	best := 0.0
	for _, c := range servers {
		if c.kind != kind {
			continue
		}
		if m := median(each(of(all, c.name, sh), value)); m > best {
			best, name = m, c.name
		}
	}
	return name
}

// paired returns the median of a's values divided by b's of the same round, 0
// if they have no round in common.
func paired(a, b []measurement, value func(measurement) float64) float64 {
	var ratios []float64
	for _, m := range a {
		for _, n := range b {
			if m.Round == n.Round && value(n) > 0 {
				ratios = append(ratios, value(m)/value(n))
			}
		}
	}
	return median(ratios)
}

func rate(m measurement) float64 { return m.Rate }

// thrift is how many messages a second of processor time is enough for.
func thrift(m measurement) float64 {
	if m.CPU <= 0 {
		return 0
	}
	return 1e6 / m.CPU
}

func each(ms []measurement, value func(measurement) float64) (v []float64) {
	for _, m := range ms {
		v = append(v, value(m))
	}
	return v
}

// of returns the measurements of a server under a shape, by round.
func of(all []measurement, server string, sh shape) (ms []measurement) {
	for _, m := range all {
		if m.Server == server && m.Shape == sh.String() {
			ms = append(ms, m)
		}
	}
	return ms
}
