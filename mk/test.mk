# Tests: TAP under prove. tests/<dir>/x_test.c is a C unit test (cmocka), tests/<dir>/NN-name.t a script.
# tests/<dir>/x_tool.c is a program that scripts run, $EG_TESTS/<dir>/x_tool.
# TESTS="tests/hashd/10-route.t build/tests/common/buf_test.t" runs a choice.

CMOCKA_LIBS := -lcmocka
JOBS ?= $(shell nproc)
# Daemon folders, then what belongs to no daemon.
TEST_DIRS := $(filter-out lib fuzz bench,$(notdir $(patsubst %/,%,$(wildcard tests/*/))))
C_TESTS := $(patsubst tests/%.c,$(T)/%.t,$(wildcard tests/*/*_test.c))
TEST_TOOLS := $(patsubst tests/%.c,$(T)/%,$(wildcard tests/*/*_tool.c))
FUZZERS := $(patsubst tests/fuzz/%_fuzz.c,%,$(wildcard tests/fuzz/*_fuzz.c))
REPLAYS := $(addprefix $(T)/fuzz/,$(addsuffix _replay.t,$(FUZZERS)))

# cmocka has to be there first.
$(patsubst %.c,$(O)/%.o,$(wildcard tests/*/*_test.c)): | deps-test

# A test of common/ links common's archive; a test of a daemon that daemon's as well.
define c_test_rule
$(T)/$(1)/%_test.t: $(O)/tests/$(1)/%_test.o $(if $(filter $(1),$(DIRS)),$(O)/lib$(1).a) $(O)/libcommon.a
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$(Q)$(CC) $$(ALL_LDFLAGS) -o $$@ $$^ $(CMOCKA_LIBS) $$(PKG_LIBS) -lm
$(T)/$(1)/%_tool: $(O)/tests/$(1)/%_tool.o $(if $(filter $(1),$(DIRS)),$(O)/lib$(1).a) $(O)/libcommon.a
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$(Q)$(CC) $$(ALL_LDFLAGS) -o $$@ $$^ $$(PKG_LIBS) -lm
endef
$(foreach d,$(TEST_DIRS),$(eval $(call c_test_rule,$(d))))

# Its server needs libssl, which the product reaches through libcurl alone.
$(T)/common/http_client_tls_test.t: LDFLAGS += -Wl,--no-as-needed -lssl -Wl,--as-needed

# A fuzzer links every archive; its corpus is replayed as one TAP test, without libFuzzer.
$(T)/fuzz/%_replay.t: $(O)/tests/fuzz/%_fuzz.o $(O)/tests/fuzz/replay_main.o $(filter-out $(O)/libcommon.a,$(ARCHIVES)) $(O)/libcommon.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -lm
$(O)/fuzz/%: $(O)/tests/fuzz/%_fuzz.o $(filter-out $(O)/libcommon.a,$(ARCHIVES)) $(O)/libcommon.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -lm

.PRECIOUS: $(O)/%.o

PROVE := CMOCKA_MESSAGE_OUTPUT=TAP EG_BIN="$(CURDIR)/$(BIN)" EG_TESTS="$(CURDIR)/$(T)" mk/prove -j $(JOBS)

.PHONY: test test-build sanitize sanitize-thread fuzz cover
test-build: deps-test $(PROGRAMS) $(C_TESTS) $(TEST_TOOLS) $(REPLAYS)

test: test-build ## build and run every test
	$(Q)$(PROVE) $(if $(TESTS),$(TESTS),-r $(T) tests)

test-%: test-build ## run the tests of one directory, e.g. test-hashd
	$(Q)$(PROVE) $(filter $(T)/$*/%,$(C_TESTS) $(REPLAYS)) $(wildcard tests/$*/*.t)

sanitize: ## every test under AddressSanitizer and UBSan
	$(Q)+$(MAKE) --no-print-directory VARIANT=sanitize test

# Scripts in which daemons use their threads: stores, DNS, TLS, hashing, large answers. Others have deadlines of the
# product in them that a program twenty times as slow does not keep.
THREAD_SCRIPTS := $(addprefix tests/,$(addsuffix .t,$(addprefix gatewayd/,10-embeddings 30-store 32-legacy 40-coalescing \
	60-cachectl 65-purge 66-purge-store 68-purge-memory 70-trace-export) broadcasterd/10-purge broadcasterd/30-redelivery \
	hashd/11-route hashd/60-access-log redisproxy/10-commands redisproxy/43-tls redisproxy/47-name pod/60-by-reference))

sanitize-thread: ## C tests, and the daemons where they use threads, under ThreadSanitizer
	$(Q)+$(MAKE) --no-print-directory VARIANT=thread test TESTS="-r build/thread/tests $(THREAD_SCRIPTS)"

# Long ones, each a target of its own.
.PHONY: test-redis-suite
test-redis-suite: deps-suite all ## Redis's own test suite directly and through redisproxy, compared (minutes; UNITS="unit/multi ..." for some)
	$(Q)tests/redisproxy/suite/run $(BIN) $(O)/redis-suite $(UNITS)

.PHONY: test-redis-model
test-redis-model: test-build ## redisproxy against its model for longer (MODEL_ROUNDS=5000, about two minutes; EG_MODEL_SEED=n)
	$(Q)EG_MODEL_ROUNDS=$(or $(MODEL_ROUNDS),5000) $(PROVE) -v tests/redisproxy/60-model.t

FUZZ_SECONDS ?= 60
.PHONY: fuzz-run
fuzz: deps-fuzz ## run each fuzzer for FUZZ_SECONDS (60)
	$(Q)+$(MAKE) --no-print-directory VARIANT=fuzz fuzz-run
fuzz-run: $(addprefix $(O)/fuzz/,$(FUZZERS))
	$(Q)for f in $(FUZZERS); do echo "fuzz $$f"; mkdir -p $(O)/found/$$f; \
	  $(O)/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
	    -artifact_prefix=$(O)/found/$$f- $(O)/found/$$f tests/fuzz/corpus/$$f || exit 1; done

cover: ## line coverage into build/coverage (needs lcov)
	$(Q)+$(MAKE) --no-print-directory VARIANT=cover test
	$(Q)lcov -q -c -d build/cover --include '*/common/*' $(foreach d,$(DIRS),--include '*/$(d)/*') -o build/cover/lcov.info
	$(Q)genhtml -q -o build/coverage build/cover/lcov.info && lcov -l build/cover/lcov.info
