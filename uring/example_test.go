package uring_test

import (
	"errors"
	"fmt"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/uring"
)

// Where io_uring cannot be used, the error says why and what would allow it.
func ExampleAvailable() {
	err := uring.Available()
	var why *backend.UnavailableError
	switch {
	case err == nil, errors.As(err, &why):
		fmt.Println("io_uring works, or the reason is known")
	default:
		fmt.Println("unexpected:", err)
	}
	// Output: io_uring works, or the reason is known
}
