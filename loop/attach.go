package loop

// Attachment is what another package keeps with a loop: pools, tables.
type Attachment interface {
	// LoopClosed is called once, when the loop is being closed and no operation
	// is in flight any more.
	LoopClosed()
}

// attachments are few, so that a list is searched fastest.
type attachments []attached

type attached struct {
	key any
	a   Attachment
}

// Attached returns the attachment with the given key, which must be comparable
// and of a type of the caller's own. The first time, newAttachment makes it.
// Loop's thread only.
func (l *Loop) Attached(key any, newAttachment func() Attachment) Attachment {
	for _, e := range l.attached {
		if e.key == key {
			return e.a
		}
	}
	a := newAttachment()
	l.attached = append(l.attached, attached{key, a})
	return a
}

// closeAttached tells the attachments that the loop is closed, last made first.
func (l *Loop) closeAttached() {
	for i := len(l.attached) - 1; i >= 0; i-- {
		l.guarded(l.attached[i].a.LoopClosed, "Panic in an Attachment that was told of the loop's end")
	}
	l.attached = nil
}
