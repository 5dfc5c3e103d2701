package loop

import (
	"testing"

	"github.com/seed-80cfe818/ringloop/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }
