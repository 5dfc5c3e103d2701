package main

// setOptions are what may follow SET key value.
type setOptions struct {
	nx, xx, get, keepTTL bool
	span                 span   // of life; 0 if there is none
	life                 []byte // as it was sent
}

// parseSetOptions reports whether the options are known and go together.
func parseSetOptions(args [][]byte) (o setOptions, ok bool) {
	for i := 0; i < len(args); i++ {
		more := i+1 < len(args)
		switch opt := args[i]; {
		case isWord(opt, "NX") && !o.xx:
			o.nx = true
		case isWord(opt, "XX") && !o.nx:
			o.xx = true
		case isWord(opt, "GET"):
			o.get = true
		case isWord(opt, "KEEPTTL") && o.span.unit == 0:
			o.keepTTL = true
		default:
			s, ok := spanOption(opt)
			if !ok || !more || o.keepTTL || (o.span.unit != 0 && o.span != s) {
				return o, false
			}
			i++
			o.span, o.life = s, args[i]
		}
	}
	return o, true
}

// spanOption returns what an option that a lifetime follows says of it.
func spanOption(opt []byte) (s span, ok bool) {
	switch {
	case isWord(opt, "EX"):
		return span{unit: second}, true
	case isWord(opt, "PX"):
		return span{unit: millisecond}, true
	case isWord(opt, "EXAT"):
		return span{second, true}, true
	case isWord(opt, "PXAT"):
		return span{millisecond, true}, true
	}
	return s, false
}

// set is SET key value [NX | XX] [GET] [EX seconds | PX milliseconds |
// EXAT seconds | PXAT milliseconds | KEEPTTL].
func set(c *conn, args [][]byte) {
	opts, ok := parseSetOptions(args[3:])
	if !ok {
		c.fail(errSyntax)
		return
	}
	deadline := int64(0)
	if opts.span.unit != 0 {
		n, ok := parseInt(opts.life)
		if !ok {
			c.fail(errInteger)
			return
		}
		if deadline, ok = c.srv.store.deadline(n, opts.span); !ok || n <= 0 {
			c.badExpire(args)
			return
		}
	}
	var old *entry
	if len(args) > 3 { // without options it does not matter
		old = c.srv.store.get(args[1])
	}
	if opts.get {
		c.value(old) // now, since its memory is used again
	}
	if (opts.nx && old != nil) || (opts.xx && old == nil) {
		if !opts.get {
			c.null()
		}
		return
	}
	if opts.keepTTL && old != nil {
		deadline = old.deadline
	}
	e := c.srv.store.set(args[1], args[2], c.in.isOwned(2))
	if deadline != 0 {
		c.srv.store.expire(e, deadline)
	}
	if !opts.get {
		c.ok()
	}
}
