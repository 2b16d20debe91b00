# Benchmarks: our daemons beside a bare epoll server, nginx and Varnish. docs/BENCHMARKS.md

BENCH_SECONDS ?= 120
BENCH_PROGRAMS := $(patsubst tests/bench/%.c,$(O)/bench/%,$(wildcard tests/bench/*.c))

$(O)/bench/%: $(O)/tests/bench/%.o
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS)

# By musl: linked to glibc, even statically, it takes twice as long to start, and is not to be what is measured.
$(O)/bench/bare_child: tests/bench/bare_child.c
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)musl-gcc -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static -o $@ $<

.PHONY: bench
bench: deps-bench all $(BENCH_PROGRAMS) ## CPU and latency beside other servers, BENCH_SECONDS (120), BENCH_ARGS=--json
	$(Q)BENCH_SECONDS=$(BENCH_SECONDS) tests/bench/run $(BIN) $(O)/bench $(BENCH_ARGS)
	$(if $(findstring json,$(BENCH_ARGS)),,$(Q)EG_BIN="$(CURDIR)/$(BIN)" tests/bench/batch/run)
	$(if $(findstring json,$(BENCH_ARGS)),,$(Q)EG_BIN="$(CURDIR)/$(BIN)" tests/bench/reindex/run)
	$(Q)tests/bench/redisproxy/run $(BIN)
	$(if $(findstring json,$(BENCH_ARGS)),,$(Q)EG_BIN="$(CURDIR)/$(BIN)" tests/bench/supervisor/run $(O)/bench)
	$(if $(findstring json,$(BENCH_ARGS)),,$(Q)EG_BIN="$(CURDIR)/$(BIN)" tests/bench/exportermerger/run)
	$(if $(findstring json,$(BENCH_ARGS)),,$(Q)EG_BIN="$(CURDIR)/$(BIN)" tests/bench/pod/run)

.PHONY: bench-purge
bench-purge: all test-build ## processor time and memory of purges among 1,000,000 objects, against their limits
	$(Q)for t in $(T)/gatewayd/cache_purge_test.t tests/gatewayd/68-purge-memory.t; do \
		EG_PURGE_OBJECTS=1000000 EG_PURGE_ROUNDS=5 EG_BIN="$(CURDIR)/$(BIN)" $$t >$(O)/bench-purge.out; rc=$$?; \
		grep '^#' $(O)/bench-purge.out; [ $$rc = 0 ] || exit 1; \
	done

.PHONY: bench-exportermerger
bench-exportermerger: deps-bench all ## a merged page beside a merger in Python: time, CPU, peak memory
	$(Q)EG_BIN="$(CURDIR)/$(BIN)" tests/bench/exportermerger/run

.PHONY: bench-batch
bench-batch: all ## a batch of 2,048 from memory and from the dir store: time, CPU, longest turn of a loop
	$(Q)EG_BIN="$(CURDIR)/$(BIN)" tests/bench/batch/run

.PHONY: bench-reindex
bench-reindex: all ## provider tokens paid for indexing 10,000 chunks twice, beside a cache of whole requests
	$(Q)EG_BIN="$(CURDIR)/$(BIN)" tests/bench/reindex/run

.PHONY: bench-supervisor
bench-supervisor: deps-bench all $(BENCH_PROGRAMS) ## the supervisor beside supervisord, runit and s6: start, memory, restart
	$(Q)EG_BIN="$(CURDIR)/$(BIN)" tests/bench/supervisor/run $(O)/bench

.PHONY: bench-pod
bench-pod: all ## the whole local pod: start, memory and wake-ups when idle, memory of 10,000 clients
	$(Q)EG_BIN="$(CURDIR)/$(BIN)" tests/bench/pod/run
