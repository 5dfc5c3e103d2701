package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sort"
	"strings"
)

// DefaultExceptionHandler logs c at level ERROR (loop.default_exception_handler),
// in debug mode with the place that scheduled the running callback if c has no
// SourceTraceback. Custom handlers may call it.
//
// The logger of WithLogger, or of slog.SetDefault, gets the fields of c as
// attributes. Without either, the report is for people: the message, the fields
// on lines of their own, and the stack of a panic as Go prints it.
func (l *Loop) DefaultExceptionHandler(c *ExceptionContext) {
	if c == nil {
		c = &ExceptionContext{}
	}
	message := c.Message
	if message == "" {
		message = "Unhandled exception in event loop"
	}
	full := *c
	if full.SourceTraceback == "" && full.HandleTraceback == "" {
		full.HandleTraceback = l.handling.trace()
	}
	attrs := full.attrs()
	if l.logger == nil && plain(slog.Default().Handler()) {
		message, attrs = inLines(message, attrs), nil
	}
	l.Logger().LogAttrs(context.Background(), slog.LevelError, message, attrs...)
}

// plain reports whether h is the handler with which log/slog begins. That writes
// a message with package log as it is, and quotes the attributes behind it.
func plain(h slog.Handler) bool {
	t := reflect.TypeOf(h)
	return t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "log/slog" && t.Elem().Name() == "defaultHandler"
}

// The names of the fields that inLines treats in a way of their own.
const (
	keyException       = "exception"
	keyTraceback       = "traceback"
	keySourceTraceback = "source_traceback"
	keyHandleTraceback = "handle_traceback"
)

// inLines formats a message and its fields, the exception and the stack last.
func inLines(message string, attrs []slog.Attr) string {
	var b, last strings.Builder
	b.WriteString(message)
	handle := ""
	for _, a := range attrs {
		v := strings.TrimRight(a.Value.String(), "\n")
		switch a.Key {
		case keyException:
			fmt.Fprintf(&last, "\n%s: %s", a.Key, v)
		case keyTraceback:
			last.WriteString("\n\n" + v)
		case keyHandleTraceback:
			handle = v
			b.WriteString("\nHandle created at:\n" + v)
		case keySourceTraceback:
			if v != handle { // the object is the handle
				b.WriteString("\nObject created at:\n" + v)
			}
		default:
			fmt.Fprintf(&b, "\n%s: %s", a.Key, v)
		}
	}
	return b.String() + last.String()
}

// attrs returns the fields that are set, sorted by their names.
func (c *ExceptionContext) attrs() []slog.Attr {
	fields := map[string]any{}
	for name, v := range c.Extra {
		fields[name] = v
	}
	add := func(name string, v any) {
		if v != nil && v != "" {
			fields[name] = v
		}
	}
	add("future", c.Future)
	switch c.Protocol.(type) {
	case nil, string, fmt.Stringer:
		add("protocol", c.Protocol)
	default:
		add("protocol", fmt.Sprintf("%T", c.Protocol)) // what it holds may be large, or secret
	}
	add("transport", c.Transport)
	add("socket", c.Socket)
	add("asyncgen", c.AsyncGen)
	add(keySourceTraceback, c.SourceTraceback)
	add(keyHandleTraceback, c.HandleTraceback)
	if c.Task != nil {
		fields["task"] = fmt.Sprint(c.Task)
	}
	if c.Handle != nil {
		fields["handle"] = fmt.Sprint(c.Handle)
	}
	switch err := c.Exception; {
	case err == nil:
	case isNil(err): // a pointer that became an error by mistake; its methods may panic
		fields[keyException] = fmt.Sprintf("%T(%v)", err, err)
	default:
		fields[keyException] = err.Error()
		var p *PanicError
		if errors.As(err, &p) {
			fields[keyTraceback] = string(p.Stack)
		}
	}
	if c.Context != nil {
		fields["context"] = c.Context.Message
	}
	attrs := make([]slog.Attr, 0, len(fields))
	for name, v := range fields {
		attrs = append(attrs, slog.Any(name, v))
	}
	sort.Slice(attrs, func(i, j int) bool { return attrs[i].Key < attrs[j].Key })
	return attrs
}
