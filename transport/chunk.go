package transport

import (
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"
)

// Chunks hold what was written until the kernel has taken it. Their sizes are
// powers of two, so that many small messages lie close together, and their
// memory is outside the Go heap, so that sending needs no pinning.
const (
	minChunkBits = 8
	maxChunkBits = 18
	minChunk     = 1 << minChunkBits
	maxChunk     = 1 << maxChunkBits
	chunkClasses = maxChunkBits - minChunkBits + 1

	// carvedChunk is the largest size that is cut out of slabs; larger ones are
	// mapped one by one and returned to the kernel when many are free.
	carvedChunk = 32 << 10
	slabSize    = 256 << 10
	// keptBytes is how much memory of large chunks is kept when it is free.
	keptBytes = 8 << 20
	// chunkStagger is added to the distance of chunks of a page and more, so that
	// they do not all begin in the same set of the processor's caches.
	chunkStagger = 320
)

// chunk is a piece of memory that is filled at the end while the kernel takes
// from the beginning.
type chunk struct {
	mem   []byte // its length is the size of the chunk
	taken int    // bytes at the beginning that are done with
	end   int    // end of the bytes that were written
}

// rest is how many bytes of the chunk are still to be sent.
func (c *chunk) rest() []byte { return c.mem[c.taken:c.end] }

// chunks is a pool of chunks.
type chunks struct {
	free [chunkClasses][][]byte
	kept int
	maps [][]byte
}

// classOf returns the class of the smallest chunk that holds n bytes, or of the
// largest there is.
func classOf(n int) int {
	if n <= minChunk {
		return 0
	}
	return min(bits.Len(uint(n-1))-minChunkBits, chunkClasses-1)
}

// take returns a chunk of at least n bytes, or of maxChunk if n is more.
func (p *chunks) take(n int) []byte {
	class := classOf(n)
	free := p.free[class]
	if len(free) == 0 {
		if size := minChunk << class; size > carvedChunk {
			return mapMemory(size)
		}
		p.carve(class)
		free = p.free[class]
	}
	mem := free[len(free)-1]
	p.free[class] = free[:len(free)-1]
	if len(mem) > carvedChunk {
		p.kept -= len(mem)
	}
	return mem
}

// carve cuts a slab into chunks of a class.
func (p *chunks) carve(class int) {
	slab := mapMemory(slabSize)
	p.maps = append(p.maps, slab)
	size := minChunk << class
	stride := size
	if size >= 4096 {
		stride += chunkStagger
	}
	for off := slabSize/stride*stride - stride; off >= 0; off -= stride {
		p.free[class] = append(p.free[class], slab[off:off+size:off+size])
	}
}

// put takes a chunk back.
func (p *chunks) put(mem []byte) {
	if len(mem) > carvedChunk {
		if p.kept+len(mem) > keptBytes {
			unmapMemory(mem)
			return
		}
		p.kept += len(mem)
	}
	class := classOf(len(mem))
	p.free[class] = append(p.free[class], mem)
}

// close releases all memory that is free; by then all of it is.
func (p *chunks) close() {
	for class := classOf(2 * carvedChunk); class < chunkClasses; class++ {
		for _, mem := range p.free[class] {
			unmapMemory(mem)
		}
	}
	for _, slab := range p.maps {
		unmapMemory(slab)
	}
	*p = chunks{}
}

// mapMemory gets memory from the kernel. Like the Go heap, it does not return
// when there is none.
func mapMemory(n int) []byte {
	mem, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(fmt.Sprintf("transport: out of memory: mapping %d bytes for data: %v", n, err))
	}
	return mem
}

func unmapMemory(mem []byte) {
	if err := unix.Munmap(mem); err != nil {
		panic(fmt.Sprintf("transport: unmapping %d bytes: %v", len(mem), err))
	}
}
