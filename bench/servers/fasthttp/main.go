// Command fasthttp serves the files of a directory with fasthttp.
package main

import (
	"log"
	"os"

	"github.com/valyala/fasthttp"
)

func main() {
	files := &fasthttp.FS{Root: os.Args[2], AcceptByteRange: true}
	log.Fatal(fasthttp.ListenAndServe("127.0.0.1:"+os.Args[1], files.NewRequestHandler()))
}
