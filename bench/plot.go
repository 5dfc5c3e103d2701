package main

import (
	"bytes"
	"fmt"
	"html"
)

// The measures of a plot, in pixels.
const (
	plotBar    = 12 // height of a bar
	plotGap    = 26 // between two shapes
	plotLabel  = 190
	plotWidth  = 460 // of a rate equal to that of the best server
	plotMargin = 16
	plotHead   = 48
)

var plotColours = map[string]string{"ours": "#1f6fb4", "go": "#e08a1e", "floor": "#7a7a7a", "c": "#4d9a57", "python": "#a8558f"}

// plot draws the median rates as bars in SVG, relative to the fastest server
// under each shape.
func plot(all []measurement, servers []candidate, list []shape, s *settings) []byte {
	var b bytes.Buffer
	height := plotHead + len(list)*(len(servers)*plotBar+plotGap) + plotMargin
	width := plotLabel + plotWidth + 2*plotMargin + 100
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="10">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	text(&b, plotMargin, 20, 14, fmt.Sprintf("%s: median rate, %d rounds, server on %d core(s)", s.name, s.rounds, s.cores))
	y := plotHead
	for _, sh := range list {
		top := 0.0
		for _, c := range servers {
			top = max(top, median(each(of(all, c.name, sh), rate)))
		}
		text(&b, plotMargin, y-4, 12, sh.String())
		for _, c := range servers {
			m := median(each(of(all, c.name, sh), rate))
			text(&b, plotMargin+8, y+plotBar-3, 10, c.name)
			if top > 0 {
				w := m / top * plotWidth
				fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", plotLabel, y+1, w, plotBar-2, plotColours[c.kind])
				text(&b, plotLabel+int(w)+4, y+plotBar-3, 10, fmt.Sprintf("%.0f/s", m))
			}
			y += plotBar
		}
		y += plotGap
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func text(b *bytes.Buffer, x, y, size int, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="%d">%s</text>`+"\n", x, y, size, html.EscapeString(s))
}
