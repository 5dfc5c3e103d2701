package loop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// logTo sends the loop's messages to a buffer.
func logTo(l *Loop) *bytes.Buffer {
	var b bytes.Buffer
	l.logger = slog.New(slog.NewTextHandler(&b, nil))
	return &b
}

func TestACallbacksPanicGoesToTheHandlerAndTheLoopGoesOn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		boom := errors.New("boom")
		h := soon(t, l, func() { panic(boom) })
		ran := false
		soon(t, l, func() { ran = true })
		runOnce(t, l)
		if !ran {
			t.Error("the next callback did not run")
		}
		if len(*reports) != 1 {
			t.Fatalf("%d reports", len(*reports))
		}
		c := (*reports)[0]
		if !errors.Is(c.Exception, boom) || c.Handle != h || !strings.HasPrefix(c.Message, "Exception in callback") {
			t.Errorf("report %+v", c)
		}
	})
}

func TestTheDefaultHandlerLogsTheFieldsSorted(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		log := logTo(l)
		l.CallExceptionHandler(&ExceptionContext{Exception: errors.New("boom"), Transport: "T", Protocol: "P", Extra: map[string]any{"zeta": 1}})
		s := log.String()
		if !strings.Contains(s, "level=ERROR") || !strings.Contains(s, `"Unhandled exception in event loop" exception=boom protocol=P transport=T zeta=1`) {
			t.Errorf("log %q", s)
		}
	})
}

type secretive struct{ Password string }

func TestTheLogNamesAProtocolAndNotWhatItHolds(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		log := logTo(l)
		l.CallExceptionHandler(&ExceptionContext{Exception: errors.New("boom"), Protocol: &secretive{"hunter2"}})
		if s := log.String(); !strings.Contains(s, "protocol=*loop.secretive") || strings.Contains(s, "hunter2") {
			t.Errorf("log %q", s)
		}
	})
}

// lockedBuffer is a buffer for several goroutines: the garbage collector's logs
// as well.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// logPlainly sends what slog.Default writes, which is what a loop without a
// logger of its own uses, to a buffer until the test ends.
func logPlainly(t *testing.T) *lockedBuffer {
	b := &lockedBuffer{}
	before := log.Writer()
	log.SetOutput(b)
	t.Cleanup(func() { log.SetOutput(before) })
	return b
}

func explode() { panic("boom") }

func TestWithoutALoggerAPanicIsReportedInLines(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		out := logPlainly(t)
		soon(t, l, explode)
		runOnce(t, l)
		want := regexp.MustCompile(`(?m)^\S+ \S+ ERROR Exception in callback
handle: <Handle.*>
exception: panic: boom

goroutine \d+ \[running.*\]:
(.*\n)*github.com/seed-80cfe818/ringloop/loop\.explode\(.*\)
\t.*/loop/exception_test.go:\d+ `)
		if !want.MatchString(out.String()) {
			t.Errorf("the report is\n%s", out)
		}
		if strings.Contains(out.String(), "Object created at") {
			t.Error("the place is told without debug mode")
		}
	})
}

func TestWithoutALoggerEveryFieldHasItsLine(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		out := logPlainly(t)
		l.CallExceptionHandler(&ExceptionContext{
			Exception: errors.New("boom"), Transport: "T", Protocol: "P", Extra: map[string]any{"zeta": 1},
			HandleTraceback: "f\n\tfile.go:1\n", SourceTraceback: "g\n\tfile.go:2\n",
		})
		_, s, _ := strings.Cut(out.String(), " ERROR ")
		want := "Unhandled exception in event loop\n" +
			"Handle created at:\nf\n\tfile.go:1\n" +
			"protocol: P\n" +
			"Object created at:\ng\n\tfile.go:2\n" +
			"transport: T\nzeta: 1\nexception: boom\n"
		if s != want {
			t.Errorf("the report is\n%s\nwant\n%s", s, want)
		}
	})
}

func TestInDebugModeTheReportInLinesTellsThePlaceOnce(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		out := logPlainly(t)
		l.SetDebug(true)
		soon(t, l, explode)
		runOnce(t, l)
		if s := out.String(); strings.Count(s, "created at:\n") != 1 || !strings.Contains(s, "Handle created at:\n") {
			t.Errorf("the report is\n%s", s)
		}
	})
}

func TestTheLoggerOfSetDefaultGetsAttributes(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var b lockedBuffer
		before, writer, flags := slog.Default(), log.Writer(), log.Flags()
		slog.SetDefault(slog.New(slog.NewJSONHandler(&b, nil)))
		t.Cleanup(func() {
			slog.SetDefault(before)
			log.SetOutput(writer) // SetDefault has taken package log over as well
			log.SetFlags(flags)
		})
		soon(t, l, explode)
		runOnce(t, l)
		var report struct{ Level, Msg, Exception, Traceback string }
		if err := json.Unmarshal([]byte(b.String()), &report); err != nil {
			t.Fatalf("%v: %s", err, b.String())
		}
		if report.Level != "ERROR" || report.Msg != "Exception in callback" || report.Exception != "panic: boom" ||
			!strings.Contains(report.Traceback, "loop.explode(") {
			t.Errorf("the report is %+v", report)
		}
	})
}

func TestACustomHandlerCanBeSetAndCleared(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		log := logTo(l)
		if l.ExceptionHandler() != nil {
			t.Error("a handler by default")
		}
		reports := collectReports(l)
		l.CallExceptionHandler(&ExceptionContext{Message: "custom"})
		if len(*reports) != 1 || log.Len() != 0 {
			t.Errorf("%d reports, log %q", len(*reports), log)
		}
		l.SetExceptionHandler(nil)
		if l.ExceptionHandler() != nil {
			t.Error("the handler was not cleared")
		}
		l.CallExceptionHandler(&ExceptionContext{Message: "default"})
		if len(*reports) != 1 || !strings.Contains(log.String(), "default") {
			t.Errorf("%d reports, log %q", len(*reports), log)
		}
	})
}

func TestABrokenHandlerIsReportedToTheDefaultOne(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		log := logTo(l)
		l.SetExceptionHandler(brokenHandler)
		l.CallExceptionHandler(&ExceptionContext{Message: "original"})
		s := log.String()
		for _, want := range []string{"Unhandled error in exception handler", "context=original", "broken", "loop.brokenHandler("} {
			if !strings.Contains(s, want) {
				t.Errorf("log %q lacks %q", s, want)
			}
		}
	})
}

func brokenHandler(*Loop, *ExceptionContext) { panic("broken") }

type panickyValue struct{}

func (panickyValue) MarshalText() ([]byte, error) { panic("unprintable") }
func (panickyValue) LogValue() slog.Value         { panic("unprintable") }
func (panickyValue) Error() string                { panic("unprintable") }

func TestABrokenDefaultHandlerIsOnlyLogged(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		log := logTo(l)
		l.CallExceptionHandler(&ExceptionContext{Message: "original", Exception: panickyValue{}})
		for _, want := range []string{"Error in default exception handler while handling: original", "loop.panickyValue.Error("} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("log %q lacks %q", log, want)
			}
		}
	})
}

// brokenOnce is a handler of logs whose first call panics.
type brokenOnce struct {
	slog.Handler
	calls *int
}

func (h brokenOnce) Handle(ctx context.Context, r slog.Record) error {
	if *h.calls++; *h.calls == 1 {
		panic("no room")
	}
	return h.Handler.Handle(ctx, r)
}

func TestABrokenHandlerAndABrokenDefaultHandlerAreOnlyLogged(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var log bytes.Buffer
		l.logger = slog.New(brokenOnce{slog.NewTextHandler(&log, nil), new(int)})
		l.SetExceptionHandler(brokenHandler)
		ran := false
		soon(t, l, explode)
		soon(t, l, func() { ran = true })
		runOnce(t, l)
		s := log.String()
		if !ran || !strings.Contains(s, "Error in default exception handler while handling: Unhandled error in exception handler") || !strings.Contains(s, "no room") {
			t.Errorf("the next callback ran: %v, log %q", ran, s)
		}
	})
}

// brokenLogger is a handler of records that panics.
type brokenLogger struct{}

func (brokenLogger) Enabled(context.Context, slog.Level) bool  { return true }
func (brokenLogger) Handle(context.Context, slog.Record) error { panic("broken logger") }
func (b brokenLogger) WithAttrs([]slog.Attr) slog.Handler      { return b }
func (b brokenLogger) WithGroup(string) slog.Handler           { return b }

func TestALoggerThatPanicsDoesNotEndTheRun(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.logger = slog.New(brokenLogger{})
		for _, debug := range []bool{false, true} {
			l.SetDebug(debug)
			l.SetSlowCallbackDuration(time.Nanosecond)
			soon(t, l, func() { panic("boom") })
			l.Go(func(*Coro) error { panic("boom") })
			called := false
			soon(t, l, func() { called = true })
			runOnce(t, l)
			if !called {
				t.Errorf("debug mode %v: the last callback was not called", debug)
			}
		}
		reports := collectReports(l)
		soon(t, l, func() {})
		runOnce(t, l)
		if len(*reports) != 1 || (*reports)[0].Message != "Panic in the logger" {
			t.Errorf("reports %v", *reports)
		}
	})
}

func TestAReportOfNilPointersIsMadeLikeAnyOther(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		log := logTo(l)
		l.CallExceptionHandler(&ExceptionContext{
			Message: "original", Task: (*Task[int])(nil), Future: (*Task[int])(nil), Handle: (*Handle)(nil),
			Exception: (*fs.PathError)(nil),
		})
		for _, want := range []string{"msg=original", "task=<nil>", "exception=*fs.PathError(<nil>)"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("log %q lacks %q", log, want)
			}
		}
	})
}

func TestLoopExitPassesThroughTheHandler(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		interrupt := errors.New("interrupt")
		l.SetExceptionHandler(func(*Loop, *ExceptionContext) { panic(LoopExit{interrupt}) })
		soon(t, l, func() { panic("boom") })
		wantErr(t, "RunForever", l.RunForever(), interrupt)
	})
}

func TestTheHandlerRunsInTheContextOfTheFailingTaskOrCallback(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		v := NewContextVar[string]("v")
		var got []string
		l.SetExceptionHandler(func(l *Loop, _ *ExceptionContext) {
			s, _ := v.Get(l.CurrentContext())
			got = append(got, s)
		})
		ctx := NewContext()
		v.Set(ctx, "callback")
		mustCall[Handle](t)(l.CallSoonContext(ctx, func() { panic("x") }))
		ctx2 := NewContext()
		v.Set(ctx2, "task")
		CreateTask(l, func(*Coro) (int, error) { panic("x") }, &TaskOptions{Context: ctx2})
		runOnce(t, l)
		if len(got) != 2 || got[0] != "callback" || got[1] != "task" {
			t.Errorf("got %q", got)
		}
	})
}

func TestTheHandlerRunsInTheContextOfWhatTheReportIsAbout(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		v := NewContextVar[string]("v")
		var got []string
		l.SetExceptionHandler(func(l *Loop, _ *ExceptionContext) {
			s, _ := v.Get(l.CurrentContext())
			got = append(got, s)
		})
		with := func(value string) *Context {
			ctx := NewContext()
			v.Set(ctx, value)
			return ctx
		}
		task := CreateTask(l, func(*Coro) (int, error) { return 0, nil }, &TaskOptions{Context: with("task")})
		h := mustCall[Handle](t)(l.CallSoonContext(with("handle"), func() {}))
		future := CreateFuture[int](l)
		for _, c := range []*ExceptionContext{
			{Future: task, Handle: h}, {Future: future, Handle: h}, {Task: task, Handle: h}, {Future: future}, nil,
		} {
			l.CallExceptionHandler(c)
		}
		if want := []string{"task", "handle", "task", "", ""}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		runOnce(t, l)
	})
}

func TestAVariableCanHoldANilInterface(t *testing.T) {
	ctx := NewContext()
	v := NewContextVar[error]("v")
	v.Set(ctx, nil)
	if err, ok := v.Get(ctx); err != nil || !ok {
		t.Errorf("got %v, %v", err, ok)
	}
	if _, ok := v.Get(NewContext()); ok {
		t.Error("a value in an empty context")
	}
}

func TestContextsAreCopiedWhenSomethingIsScheduled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		v := NewContextVar[int]("v")
		var h Handle
		see := func(want int, what string) {
			t.Helper()
			if got, _ := v.Get(l.CurrentContext()); got != want {
				t.Errorf("%s sees %d, want %d", what, got, want)
			}
		}
		soon(t, l, func() {
			reset := v.Set(l.CurrentContext(), 1)
			soon(t, l, func() { see(1, "a callback"); v.Set(l.CurrentContext(), 5) })
			l.Go(func(co *Coro) error {
				see(1, "a task")
				v.Set(l.CurrentContext(), 7)
				err := Sleep(co, time.Microsecond)
				see(7, "a task after its wait")
				return err
			})
			v.Set(l.CurrentContext(), 2)
			mustCall[TimerHandle](t)(l.CallLater(0, func() { see(2, "a timer") }))
			f := CreateFuture[int](l)
			f.AddDoneCallback(func(AnyFuture) { see(2, "a future's callback") })
			_ = f.SetResult(1)
			shared := NewContext()
			v.Set(shared, 40)
			h = mustCall[Handle](t)(l.CallSoonContext(shared, func() { v.Set(l.CurrentContext(), 41) }))
			if h.Context() != shared {
				t.Error("the handle has another context")
			}
			reset()
			if _, ok := v.Get(l.CurrentContext()); ok {
				t.Error("reset did not remove the value")
			}
			mustCall[TimerHandle](t)(l.CallLater(5*time.Millisecond, func() {
				if got, _ := v.Get(shared); got != 41 {
					t.Errorf("the shared context holds %d", got)
				}
				l.Stop()
			}))
		})
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
		if v.Name() != "v" {
			t.Errorf("name %q", v.Name())
		}
	})
}

func TestDebugRefusesCallsFromOtherThreads(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		try := func() (errs [5]error) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, errs[0] = l.CallSoon(func() {})
				_, errs[1] = l.CallLater(0, func() {})
				_, errs[2] = l.CallAt(0, func() {})
				errs[3] = CreateFuture[int](l).SetResult(1)
				errs[4] = CreateFuture[int](l).SetException(ErrTimeout)
			}()
			<-done
			return errs
		}
		l.SetDebug(true)
		soon(t, l, func() {
			for _, err := range try() {
				wantErr(t, "a call from another goroutine", err, ErrWrongThread)
			}
			_, err := l.CallSoon(func() {})
			if err != nil {
				t.Errorf("a call from the loop's thread: %v", err)
			}
		})
		runOnce(t, l)
		l.SetDebug(false)
		soon(t, l, func() {
			for _, err := range try() {
				if err != nil {
					t.Errorf("debug is off: %v", err)
				}
			}
		})
		runOnce(t, l)
	})
}

func TestDebugLogsSlowCallbacksAndSteps(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		log := logTo(l)
		l.SetDebug(true)
		l.SetSlowCallbackDuration(time.Nanosecond)
		if l.SlowCallbackDuration() != time.Nanosecond {
			t.Error("the limit was not kept")
		}
		soon(t, l, func() {})
		CreateTask(l, func(*Coro) (int, error) { return 0, nil }, &TaskOptions{Name: "slow one"})
		mustCall[TimerHandle](t)(l.CallLater(0, func() {}))
		runOnce(t, l)
		s := log.String()
		if n := len(regexp.MustCompile(`level=WARN msg="Executing <.*> took \d+\.\d{3} seconds"`).FindAllString(s, -1)); n != 3 {
			t.Errorf("%d warnings:\n%s", n, s)
		}
		for _, want := range []string{"Executing <Handle", "TestDebugLogsSlowCallbacksAndSteps", "Executing <Task", "slow one", "Executing <TimerHandle"} {
			if !strings.Contains(s, want) {
				t.Errorf("the log lacks %q:\n%s", want, s)
			}
		}
		l.SetSlowCallbackDuration(time.Hour)
		log.Reset()
		soon(t, l, func() {})
		runOnce(t, l)
		if log.Len() != 0 {
			t.Errorf("logged %q", log)
		}
	})
}

func TestHandlesDescribeThemselves(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		h := soon(t, l, func() {})
		if s := h.String(); s != "<Handle>" {
			t.Errorf("outside debug mode: %q", s)
		}
		l.SetDebug(true)
		h = soon(t, l, func() {})
		th := mustCall[TimerHandle](t)(l.CallLater(time.Hour, func() {}))
		for _, s := range []string{h.String(), th.String()} {
			if !strings.Contains(s, "TestHandlesDescribeThemselves") || !strings.Contains(s, "_test.go:") {
				t.Errorf("in debug mode: %q", s)
			}
		}
		h.Cancel()
		if s := h.String(); !strings.Contains(s, "cancelled") || !strings.Contains(s, "_test.go:") {
			t.Errorf("cancelled: %q", s)
		}
		th.Cancel()
	})
}

func noop() {}

func TestAReportDescribesTheCallbackThatFailedInDebugMode(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetDebug(true)
		reports := collectReports(l)
		h := soon(t, l, func() {
			soon(t, l, noop) // takes over the memory of the callback that runs
			panic("x")
		})
		before := h.String()
		mustCall[TimerHandle](t)(l.CallLater(0, func() { panic("y") }))
		runOnce(t, l)
		if len(*reports) != 2 {
			t.Fatalf("%d reports", len(*reports))
		}
		if s := (*reports)[0].Handle.String(); s != before || h.String() != before || !strings.Contains(s, "_test.go:") {
			t.Errorf("the callback is %q in the report and %q afterwards, was %q before", s, h, before)
		}
		if s := (*reports)[1].Handle.String(); !strings.HasPrefix(s, "<TimerHandle when=") || !strings.Contains(s, "_test.go:") {
			t.Errorf("the timer is %q in the report", s)
		}
		runOnce(t, l)
	})
}

func TestAReportOfACallbackOfAnyKindHasAHandle(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		boom := func() { panic("x") }
		f := CreateFuture[int](l)
		_ = f.SetResult(0)
		f.AddDoneCallback(func(AnyFuture) { boom() })
		if _, err := l.CallSoon(boom); err != nil {
			t.Fatal(err)
		}
		a, b := socketPair(t)
		send(t, b, "x")
		addReader(t, l, a, func() { l.Stop(); boom() })
		runLoop(t, l)
		if len(*reports) != 3 {
			t.Fatalf("%d reports", len(*reports))
		}
		for _, c := range *reports {
			if c.Handle == nil || c.Handle.String() != "<Handle>" {
				t.Errorf("the handle of %q is %v", c.Message, c.Handle)
			}
		}
		removeReader(t, l, a)
	})
}

func TestDebugModeKnowsDoneCallbacks(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		log, reports := logTo(l), collectReports(l)
		l.SetDebug(true)
		l.SetSlowCallbackDuration(time.Hour)
		f := CreateFuture[int](l)
		_ = f.SetResult(0)
		f.AddDoneCallback(func(AnyFuture) { panic("x") })
		runOnce(t, l)
		if log.Len() != 0 || len(*reports) != 1 || !strings.Contains((*reports)[0].SourceTraceback, "TestDebugModeKnowsDoneCallbacks") {
			t.Errorf("logged %q, reported %v", log, *reports)
		}
		l.SetSlowCallbackDuration(time.Nanosecond)
		f.AddDoneCallback(func(AnyFuture) {})
		runOnce(t, l)
		if s := log.String(); !strings.Contains(s, "Executing <Handle") || !strings.Contains(s, "TestDebugModeKnowsDoneCallbacks") {
			t.Errorf("logged %q", s)
		}
	})
}

func TestAHandleOfAnyKindKeepsItsContextUntilItHasRun(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		ctx := NewContext()
		for name, schedule := range map[string]func(*Context, func()) (Handle, error){
			"CallSoon": l.CallSoonContext, "CallSoonThreadsafe": l.CallSoonThreadsafeContext,
		} {
			h := mustCall[Handle](t)(schedule(ctx, func() {}))
			gone := mustCall[Handle](t)(schedule(ctx, func() {}))
			gone.Cancel()
			if h.Context() != ctx || gone.Context() != ctx {
				t.Errorf("%s: the contexts are %p and, cancelled, %p, want %p", name, h.Context(), gone.Context(), ctx)
			}
			runOnce(t, l)
			if h.Context() != nil {
				t.Errorf("%s: it has a context after it has run", name)
			}
		}
	})
}

func TestDebugModeComesFromTheEnvironment(t *testing.T) {
	for _, name := range []string{"RINGLOOP_DEBUG", "PYTHONASYNCIODEBUG"} {
		for value, want := range map[string]bool{"": false, "1": true} {
			t.Setenv("RINGLOOP_DEBUG", "")
			t.Setenv("PYTHONASYNCIODEBUG", "")
			t.Setenv(name, value)
			l, err := NewEventLoop()
			if err != nil {
				t.Fatal(err)
			}
			if l.Debug() != want {
				t.Errorf("%s=%q: debug %v", name, value, l.Debug())
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestTheDefaultExceptionHandlerTakesNothing(t *testing.T) {
	var log bytes.Buffer
	l, err := NewEventLoop(WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	if err != nil {
		t.Fatal(err)
	}
	l.DefaultExceptionHandler(nil)
	if !strings.Contains(log.String(), "Unhandled exception in event loop") {
		t.Errorf("logged %q", log.String())
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
