package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/seed-80cfe818/ringloop/integration"
)

// runStep runs one program and reports what it writes and how it ends.
func runStep(rep *report, step integration.Step) {
	ctx, cancel := context.WithTimeout(context.Background(), step.Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, step.Args[0], step.Args[1:]...)
	cmd.Dir = step.Dir
	cmd.Env = append(os.Environ(), "PATH=/bin", "HOME=/root", "TMPDIR=/tmp")
	cmd.Env = append(cmd.Env, step.Env...)
	out := &stepOutput{rep: rep, step: step.Name}
	cmd.Stdout = out
	cmd.Stderr = out
	// A grandchild may hold the pipe open; it is not waited for.
	cmd.WaitDelay = time.Second

	start := time.Now()
	err := cmd.Run()
	end := integration.Event{Step: step.Name, Ended: true, Took: time.Since(start), Exit: -1}
	if cmd.ProcessState != nil {
		end.Exit = cmd.ProcessState.ExitCode()
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		end.Err = fmt.Sprintf("killed after its limit of %v", step.Limit)
	case err != nil && !errors.As(err, &exit):
		end.Err = err.Error()
	}
	rep.send(end)
}

// stepOutput reports what a program writes.
type stepOutput struct {
	rep  *report
	step string
}

func (o *stepOutput) Write(p []byte) (int, error) {
	o.rep.send(integration.Event{Step: o.step, Output: p})
	return len(p), nil
}
