package epoll_test

import (
	"fmt"

	"github.com/seed-80cfe818/ringloop/epoll"
)

// A backend says what it uses, and why not what it does not use.
func ExampleNew() {
	b, err := epoll.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	_, known := b.Features().Lookup("epoll-pwait2")
	fmt.Println(b.Name(), known)
	// Output: epoll true
}
