package main

import (
	"fmt"
	"strings"
	"time"
)

// shape is a kind of load.
type shape struct {
	Connections, Size, Depth int
}

func (s shape) String() string {
	size := fmt.Sprint(s.Size)
	if s.Size >= 1024 && s.Size%1024 == 0 {
		size = fmt.Sprintf("%dK", s.Size/1024)
	}
	if s.Depth > 1 {
		return fmt.Sprintf("%dx(%dx%s)", s.Connections, s.Depth, size)
	}
	return fmt.Sprintf("%dx%s", s.Connections, size)
}

// warmup is how long a run lasts before it counts. With many connections it is
// longer: each has to have done some messages, at 100 000 a second, until caches
// and windows are as they stay.
func (s shape) warmup() time.Duration {
	return max(200*time.Millisecond, time.Duration(s.Connections)*50*time.Microsecond)
}

// counted is how long it counts, at least d, and long enough for about 15
// messages of each connection.
func (s shape) counted(d time.Duration) time.Duration {
	return max(d, time.Duration(s.Connections)*150*time.Microsecond)
}

// shapes is the matrix.
var shapes = []shape{
	{1, 64, 1}, {50, 64, 1}, {50, 512, 1}, {1000, 512, 1}, {10000, 64, 1},
	{50, 512, 16}, {200, 16 << 10, 1}, {16, 256 << 10, 1},
}

// pickShapes returns the shapes whose names are listed, all for an empty list.
func pickShapes(shapes []shape, list string) ([]shape, error) {
	if list == "" {
		return shapes, nil
	}
	var picked []shape
	for _, name := range strings.Split(list, ",") {
		found := false
		for _, s := range shapes {
			if s.String() == name {
				picked, found = append(picked, s), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no shape %q; there are %v", name, shapes)
		}
	}
	return picked, nil
}
