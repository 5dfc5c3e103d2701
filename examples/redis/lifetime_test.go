package main

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	badSet     = "-ERR invalid expire time in 'set' command"
	badExpire  = "-ERR invalid expire time in 'expire' command"
	badPExpire = "-ERR invalid expire time in 'pexpire' command"
	nxAndMore  = "-ERR NX and XX, GT or LT options at the same time are not compatible"
	gtAndLT    = "-ERR GT and LT options at the same time are not compatible"
)

// wantLeft expects that a command, TTL or PTTL, replies with a lifetime that was
// given to the key during the test.
func (c *client) wantLeft(command string, given int) {
	c.t.Helper()
	passed := int(patience.Seconds())
	if strings.HasPrefix(command, "P") {
		passed = int(patience.Milliseconds())
	}
	got := c.do(strings.Fields(command)...)
	if n, err := strconv.Atoi(got[1:]); got[0] != ':' || err != nil || n > given || n < given-passed {
		c.t.Errorf("%s: %q, want at most %d", command, got, given)
	}
}

func TestSetWithOptionsRepliesAsRedisDoes(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		for _, x := range [][2]string{
			{"SET a 1 GET", "(nil)"}, {"SET a 2 get", "1"}, {"SET a longer GET", "2"}, {"SET a 3 GET GET", "longer"},
			{"SET a 4 GET NX", "3"}, {"SET a 4 NX", "(nil)"}, {"GET a", "3"}, {"SET a 4 XX GET", "3"}, {"GET a", "4"},
			{"SET b 1 GET XX", "(nil)"}, {"EXISTS b", ":0"}, {"SET b 1 NX GET", "(nil)"}, {"GET b", "1"},
			{"SET c 1 KEEPTTL", "+OK"}, {"TTL c", ":-1"}, {"SET c 1 KEEPTTL keepttl", "+OK"},
			{"SET a 5 EX 0", badSet}, {"SET a 5 PX -1", badSet}, {"SET a 5 GET EX 0 XX", badSet}, {"SET a 5 GET EX x", "-" + errInteger}, {"SET a 5 EX 1.5", "-" + errInteger},
			{"SET a 5 EX", "-" + errSyntax}, {"SET a 5 NX XX", "-" + errSyntax}, {"SET a 5 XX NX", "-" + errSyntax}, {"SET a 5 EX 1 PX 1", "-" + errSyntax}, {"SET a 5 PX 1 EX 1", "-" + errSyntax},
			{"SET a 5 KEEPTTL EX 10", "-" + errSyntax}, {"SET a 5 PX 10 KEEPTTL", "-" + errSyntax}, {"SET a 5 EX x FOO", "-" + errSyntax}, {"SET a 5 GET FOO", "-" + errSyntax},
			{"GET a", "4"},
		} {
			c.want(x[0], x[1])
		}
		large := strings.Repeat("large", largeValue)
		for _, want := range []string{"4", large} {
			if got := c.do("SET", "a", large, "GET"); got != want {
				t.Errorf("SET a GET: %d bytes, want %d", len(got), len(want))
			}
		}
	})
}

func TestSetGivesKeepsAndTakesALifetime(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		for _, x := range []struct {
			set  string
			left int
		}{
			{"SET a 1 EX 1000", 1000}, {"SET a 2 KEEPTTL", 1000}, {"SET a 3 PX 500000", 500}, {"SET a 4 XX keepttl", 500},
			{"SET a 5 EX 1 EX 2000", 2000}, {"SET a 6 PX 1 PX 3000000", 3000}, {"SET a 7", -1}, {"SET a 8 KEEPTTL", -1},
		} {
			c.want(x.set, "+OK")
			if x.left < 0 {
				c.want("TTL a", ":-1")
				c.want("PTTL a", ":-1")
				continue
			}
			c.wantLeft("TTL a", x.left)
			c.wantLeft("PTTL a", 1000*x.left)
		}
		c.want("INCR a", ":9")
		c.want("SET a 1 EX 1000 NX GET", "9")
		c.want("TTL a", ":-1")
		// What is over leaves nothing to keep.
		c.want("SET a 1 PX 1", "+OK")
		for c.do("SET", "a", "2", "XX", "KEEPTTL") == "+OK" {
		}
		c.want("SET a 3 KEEPTTL", "+OK")
		c.want("TTL a", ":-1")
	})
}

func TestExpireRepliesAsRedisDoes(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		for _, x := range [][2]string{
			{"SET a 1", "+OK"}, {"TTL a", ":-1"}, {"PTTL a", ":-1"}, {"TTL none", ":-2"}, {"PTTL none", ":-2"},
			{"PERSIST a", ":0"}, {"PERSIST none", ":0"}, {"EXPIRE none 1", ":0"}, {"EXPIRE none 1 XX GT", ":0"},
			{"EXPIRE a 1000 XX", ":0"}, {"EXPIRE a 1000 GT", ":0"}, {"EXPIRE a 0 GT", ":0"}, {"EXPIRE a 1000 XX LT", ":0"}, {"TTL a", ":-1"},
			{"EXPIRE a 1000 NX", ":1"}, {"EXPIRE a 2000 NX", ":0"}, {"EXPIRE a 500 GT", ":0"}, {"EXPIRE a 2000 lt", ":0"},
			{"PEXPIRE a 2000000 GT XX", ":1"}, {"PEXPIRE a 1000000 LT LT", ":1"}, {"EXPIRE a 3000 XX", ":1"}, {"PERSIST a", ":1"}, {"PERSIST a", ":0"}, {"TTL a", ":-1"},
			{"EXPIRE a 1000 LT", ":1"}, {"EXPIRE a -1 GT", ":0"}, {"EXPIRE a -1 NX", ":0"}, {"EXISTS a", ":1"}, {"EXPIRE a -1 LT", ":1"}, {"EXISTS a", ":0"},
			{"SET a 1", "+OK"}, {"PEXPIRE a 0 NX", ":1"}, {"EXISTS a", ":0"}, {"SET a 1", "+OK"}, {"EXPIRE a -1", ":1"}, {"EXISTS a", ":0"},
			{"EXPIRE a x NX XX", nxAndMore}, {"EXPIRE a 1 GT NX", nxAndMore}, {"EXPIRE a 1 NX LT", nxAndMore}, {"EXPIRE a 1 NX GT LT", nxAndMore}, {"PEXPIRE a 1 LT GT", gtAndLT},
			{"EXPIRE a x", "-" + errInteger}, {"EXPIRE none x XX", "-" + errInteger}, {"EXPIRE a x Foo NX", "-ERR Unsupported option Foo"},
			{"EXPIRE a", "-ERR wrong number of arguments for 'expire' command"}, {"PTTL a b", "-ERR wrong number of arguments for 'pttl' command"}, {"PERSIST", "-ERR wrong number of arguments for 'persist' command"},
		} {
			c.want(x[0], x[1])
		}
		c.want("SET a 1", "+OK")
		for _, x := range []struct {
			command string
			left    int
		}{{"EXPIRE a 1000", 1000}, {"PEXPIRE a 500000", 500}, {"EXPIRE a 2000 GT", 2000}, {"EXPIRE a 300 LT", 300}, {"EXPIRE a 9000 NX", 300}} {
			c.do(strings.Fields(x.command)...)
			c.wantLeft("TTL a", x.left)
			c.wantLeft("PTTL a", 1000*x.left)
		}
	})
}

func TestADeadlineIsGivenAndToldAsATime(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		at := time.Now().Add(1000 * time.Second).UnixMilli()
		sec, ms := strconv.FormatInt(at/1000, 10), strconv.FormatInt(at, 10)
		rounded := strconv.FormatInt((at+500)/1000, 10)
		for _, x := range [][2]string{
			{"SET a 1 EXAT " + sec, "+OK"}, {"EXPIRETIME a", ":" + sec}, {"PEXPIRETIME a", ":" + sec + "000"}, {"SET a 2 KEEPTTL", "+OK"}, {"EXPIRETIME a", ":" + sec},
			{"SET a 3 pxat " + ms, "+OK"}, {"PEXPIRETIME a", ":" + ms}, {"EXPIRETIME a", ":" + rounded}, {"PERSIST a", ":1"}, {"EXPIRETIME a", ":-1"}, {"PEXPIRETIME none", ":-2"},
			{"EXPIREAT a " + sec + " XX", ":0"}, {"EXPIREAT a " + sec, ":1"}, {"EXPIRETIME a", ":" + sec}, {"PEXPIREAT a " + ms + " LT", ":0"}, {"PEXPIREAT a " + ms + "0 gt", ":1"}, {"PEXPIRETIME a", ":" + ms + "0"},
			{"EXPIREAT a 1 GT", ":0"}, {"EXPIREAT none 1", ":0"}, {"EXPIREAT a 1 LT", ":1"}, {"EXISTS a", ":0"}, {"SET a 1", "+OK"}, {"PEXPIREAT a 0", ":1"}, {"EXISTS a", ":0"}, {"SET a 1", "+OK"}, {"EXPIREAT a -5", ":1"}, {"EXISTS a", ":0"},
			{"SET a 1", "+OK"}, {"SET a 2 EXAT 1 GET", "1"}, {"GET a", "(nil)"}, {"SET a 1 PXAT 1", "+OK"}, {"DBSIZE", ":0"},
			{"SET a 1 EXAT 0", badSet}, {"SET a 1 PXAT -1", badSet}, {"SET a 1 EXAT 9223372036854776", badSet}, {"SET a 1 EXAT x", "-" + errInteger}, {"SET a 1 EXAT", "-" + errSyntax},
			{"SET a 1 EX 1 EXAT 1", "-" + errSyntax}, {"SET a 1 EXAT 1 PXAT 1", "-" + errSyntax}, {"SET a 1 PXAT 1 PX 1", "-" + errSyntax}, {"SET a 1 KEEPTTL EXAT 1", "-" + errSyntax}, {"SET a 1 PXAT 1 KEEPTTL", "-" + errSyntax},
			{"SET a 1 EXAT 1 EXAT " + sec, "+OK"}, {"EXPIREAT a 9223372036854776", "-ERR invalid expire time in 'expireat' command"}, {"PEXPIREAT a x", "-" + errInteger},
			{"PEXPIREAT a 9223372036854775807", ":1"}, {"PEXPIRETIME a", ":9223372036854775807"}, {"EXPIRETIME a", ":9223372036854776"}, {"GET a", "1"},
			{"EXPIRETIME", "-ERR wrong number of arguments for 'expiretime' command"},
		} {
			c.want(x[0], x[1])
		}
		c.want("EXPIREAT a "+sec, ":1")
		c.wantLeft("TTL a", 1000)
	})
}

func TestLifetimesAreAsLongAsMillisecondsCanCount(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		c.want("SET a 1 EX 9000000000000000", "+OK")
		c.wantLeft("TTL a", 9000000000000000)
		c.wantLeft("PTTL a", 9000000000000000000)
		c.want("PEXPIRE a 9200000000000000000 GT", ":1")
		c.wantLeft("TTL a", 9200000000000000)
		for _, x := range [][2]string{
			// The sum with the time since 1970 is too much, then the product.
			{"SET a 1 EX 9223372036854775", badSet}, {"SET a 1 EX 9223372036854776", badSet}, {"SET a 1 PX 9223372036854775807", badSet},
			{"EXPIRE a 9223372036854775", badExpire}, {"EXPIRE none 9223372036854776", badExpire}, {"EXPIRE a -9223372036854776", badExpire}, {"PEXPIRE a 9223372036854775807", badPExpire},
			{"SET a 1 EX 9223372036854775808", "-" + errInteger}, {"EXPIRE a -9223372036854775809", "-" + errInteger},
			{"EXPIRE a -9223372036854775", ":1"}, {"EXISTS a", ":0"}, {"SET a 1", "+OK"}, {"PEXPIRE a -9223372036854775808", ":1"}, {"EXISTS a", ":0"},
		} {
			c.want(x[0], x[1])
		}
		// A deadline far away does not hide one that is near.
		c.want("SET far 1 EX 9000000000000000", "+OK")
		c.want("SET near 1 PX 1", "+OK")
		for c.do("DBSIZE") != ":1" {
		}
		c.want("GET far", "1")
	})
}
