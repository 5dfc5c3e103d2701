package main

// setOptions are what may follow SET key value.
type setOptions struct {
	nx, xx, get, keepTTL bool
	unit                 int64  // of life; 0 if there is none
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
		case isWord(opt, "KEEPTTL") && o.unit == 0:
			o.keepTTL = true
		case isWord(opt, "EX") && more && o.unit != millisecond && !o.keepTTL:
			i++
			o.unit, o.life = second, args[i]
		case isWord(opt, "PX") && more && o.unit != second && !o.keepTTL:
			i++
			o.unit, o.life = millisecond, args[i]
		default:
			return o, false
		}
	}
	return o, true
}

// set is SET key value [NX | XX] [GET] [EX seconds | PX milliseconds | KEEPTTL].
func set(c *conn, args [][]byte) {
	opts, ok := parseSetOptions(args[3:])
	if !ok {
		c.fail(errSyntax)
		return
	}
	deadline := int64(0)
	if opts.unit != 0 {
		n, ok := parseInt(opts.life)
		if !ok {
			c.fail(errInteger)
			return
		}
		if deadline, ok = c.srv.store.after(n, opts.unit); !ok || n <= 0 {
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
