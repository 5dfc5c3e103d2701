module github.com/seed-80cfe818/ringloop

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	github.com/iceber/iouring-go v0.0.0-20230403020409-002cfd2e2a90
	golang.org/x/sys v0.49.0
)
