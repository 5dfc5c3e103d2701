package loop

// CallSurely calls fn once, whatever becomes of the loop: at once if the caller
// is on the loop's thread, else there in the loop's next turn, or at the end of
// Close if the loop does not run before that. When the loop is closed, the caller
// calls it. No two of these calls overlap. It reports whether fn has returned. It
// may be called from any goroutine; fn must not wait, and must not call it again.
//
// It is for what must not be forgotten, as CallSoonThreadsafe's function is when
// the loop is closed.
func (l *Loop) CallSurely(fn func()) bool {
	if l.onThread() {
		fn()
		return true
	}
	l.mu.Lock()
	if !l.released {
		l.sure = append(l.sure, fn)
		first := len(l.sure) == 1
		l.mu.Unlock()
		if first {
			// A loop that is being closed refuses it, and comes to the list itself.
			_, _ = l.CallSoonThreadsafe(func() { l.callSure(false) })
		}
		return false
	}
	l.mu.Unlock()
	l.afterClose.Lock()
	defer l.afterClose.Unlock()
	fn()
	return true
}

// callSure makes the calls that CallSurely has listed; the last time, later ones
// are left to their callers.
func (l *Loop) callSure(last bool) {
	for {
		l.mu.Lock()
		if len(l.sure) == 0 {
			l.sure, l.released = nil, last
			l.mu.Unlock()
			return
		}
		fn := l.sure[0]
		l.sure[0] = nil
		l.sure = l.sure[1:]
		l.mu.Unlock()
		l.callOneSurely(fn)
	}
}

// callOneSurely sees to it that the others are called if fn ends the goroutine; a
// loop that is being closed does so itself.
func (l *Loop) callOneSurely(fn func()) {
	returned := false
	defer func() {
		if !returned {
			_, _ = l.CallSoonThreadsafe(func() { l.callSure(false) })
		}
	}()
	l.guarded(fn, "Panic in a function of CallSurely")
	returned = true
}
