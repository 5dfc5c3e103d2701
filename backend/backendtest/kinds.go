package backendtest

import "golang.org/x/sys/unix"

// kind is a way to make two connected descriptors. Operations are made on the
// first; the second is the peer and never blocks.
type kind struct {
	name string
	tcp  bool
	pair func(d *driver) (a, b int)
	slow bool // its tests wait for timers of the kernel
}

// streams are the connected stream sockets.
var streams = []kind{
	{name: "tcp4", tcp: true, pair: func(d *driver) (int, int) { return d.tcp(inet4) }},
	{name: "tcp6", tcp: true, pair: func(d *driver) (int, int) { return d.tcp(inet6) }},
	{name: "unix", tcp: false, pair: unixPair},
	{name: "socketpair", tcp: false, pair: func(d *driver) (int, int) { return d.socketpair(unix.SOCK_STREAM) }},
	{name: "blocking tcp4", tcp: true, pair: func(d *driver) (int, int) {
		a, b := d.tcp(inet4)
		return d.setBlocking(a), b
	}},
	{name: "blocking socketpair", tcp: false, pair: func(d *driver) (int, int) {
		a, b := d.socketpair(unix.SOCK_STREAM)
		return d.setBlocking(a), b
	}},
}

// fillable are those for tests that fill a connection, which takes a while on
// TCP.
var fillable = slowTCP(only(streams, "tcp4", "unix", "blocking socketpair"))

func slowTCP(kinds []kind) []kind {
	for i := range kinds {
		kinds[i].slow = kinds[i].tcp
	}
	return kinds
}

// readable are descriptors for OpRead at the stream's position; the peer writes.
var readable = []kind{
	{name: "pipe", tcp: false, pair: func(d *driver) (int, int) { return d.pipe() }},
	{name: "fifo", tcp: false, pair: func(d *driver) (int, int) { return d.fifo() }},
	{name: "pty master", tcp: false, pair: func(d *driver) (int, int) { return d.pty() }},
	{name: "pty slave", tcp: false, pair: func(d *driver) (int, int) {
		m, s := d.pty()
		return s, m
	}},
	{name: "socketpair", tcp: false, pair: func(d *driver) (int, int) { return d.socketpair(unix.SOCK_STREAM) }},
	{name: "tcp4", tcp: true, pair: func(d *driver) (int, int) { return d.tcp(inet4) }},
	{name: "blocking pipe", tcp: false, pair: func(d *driver) (int, int) {
		r, w := d.pipe()
		return d.setBlocking(r), w
	}},
	{name: "blocking tcp4", tcp: true, pair: func(d *driver) (int, int) {
		a, b := d.tcp(inet4)
		return d.setBlocking(a), b
	}},
}

// writable are descriptors for OpWrite at the stream's position; the peer reads.
var writable = []kind{
	{name: "pipe", tcp: false, pair: func(d *driver) (int, int) {
		r, w := d.pipe()
		return w, r
	}},
	{name: "fifo", tcp: false, pair: func(d *driver) (int, int) {
		r, w := d.fifo()
		return w, r
	}},
	{name: "pty master", tcp: false, pair: func(d *driver) (int, int) { return d.pty() }},
	{name: "socketpair", tcp: false, pair: func(d *driver) (int, int) { return d.socketpair(unix.SOCK_STREAM) }},
	{name: "tcp4", tcp: true, pair: func(d *driver) (int, int) { return d.tcp(inet4) }},
	{name: "blocking pipe", tcp: false, pair: func(d *driver) (int, int) {
		r, w := d.pipe()
		return d.setBlocking(w), r
	}},
	{name: "blocking socketpair", tcp: false, pair: func(d *driver) (int, int) {
		a, b := d.socketpair(unix.SOCK_STREAM)
		return d.setBlocking(a), b
	}},
}

// unixPair connects two sockets through a listener with a path.
func unixPair(d *driver) (a, b int) {
	l, path := d.unixListener(16)
	a = d.dial(unix.AF_UNIX, &unix.SockaddrUnix{Name: path})
	b = d.accepted(l)
	d.closeFD(l)
	return a, b
}

// pairTest is a behaviour on every one of several kinds of descriptors.
type pairTest struct {
	name string
	fn   func(d *driver, a, b int)
}

// over makes one test of every kind and behaviour.
func over(subject string, kinds []kind, list []pairTest) []test {
	var all []test
	for _, p := range list {
		for _, k := range kinds {
			all = append(all, test{name: subject + "/" + p.name + "/" + k.name, slow: k.slow, fn: func(d *driver) {
				a, b := k.pair(d)
				p.fn(d, a, b)
			}})
		}
	}
	return all
}

// only returns the kinds with the given names.
func only(kinds []kind, names ...string) []kind {
	var some []kind
	for _, k := range kinds {
		for _, n := range names {
			if k.name == n {
				some = append(some, k)
			}
		}
	}
	return some
}

// single names the tests of a subject.
func single(subject string, list []test) []test {
	for i := range list {
		list[i].name = subject + "/" + list[i].name
	}
	return list
}
