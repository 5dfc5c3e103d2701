package transport

import "github.com/seed-80cfe818/ringloop/backend"

// Addr is the address of a socket.
type Addr = backend.Addr
