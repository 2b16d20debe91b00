# Objects, one archive a directory, programs.

TOOL_MAINS := $(foreach t,$(TOOLS),$($(t)_MAIN))
# $(call lib_sources,DIR): what DIR gives to its archive, i.e. all but the main()s.
lib_sources = $(filter-out $(1)/main.c $(TOOL_MAINS),$(wildcard $(1)/*.c $(1)/*/*.c))
objects = $(patsubst %.c,$(O)/%.o,$(1))

PROGRAMS := $(addprefix $(BIN)/,$(DAEMONS) $(TOOLS))
ARCHIVES := $(foreach d,common $(DIRS),$(O)/lib$(d).a)

$(O)/%.o: %.c | deps
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Only this object knows the version, so a commit rebuilds one file.
$(O)/common/version.o: ALL_CFLAGS += -DEG_VERSION='"$(VERSION)"'
$(O)/common/version.o: $(O)/version.stamp
$(O)/version.stamp: FORCE
	@mkdir -p $(@D)
	@echo '$(VERSION)' | cmp -s - $@ || echo '$(VERSION)' > $@
.PHONY: FORCE
FORCE:

# The page that it takes in by .incbin.
$(O)/exportermerger/status_page.o: exportermerger/status.html

# The list of members is a prerequisite: a file that came or went makes a new archive, whatever its date.
define archive_rule
$(O)/lib$(1).a: $(call objects,$(call lib_sources,$(1))) $(O)/lib$(1).list
	$$(call say,AR,$$@)
	@mkdir -p $$(@D)
	$(Q)rm -f $$@ && ar rcs $$@ $$(filter %.o,$$^)
$(O)/lib$(1).list: FORCE
	@mkdir -p $$(@D)
	@echo '$(call lib_sources,$(1))' | cmp -s - $$@ || echo '$(call lib_sources,$(1))' > $$@
endef
$(foreach d,common $(DIRS),$(eval $(call archive_rule,$(d))))

# $(call program_rule,NAME,MAIN,DIR)
define program_rule
$(BIN)/$(1): $(call objects,$(2)) $(O)/lib$(3).a $(O)/libcommon.a
	$$(call say,LD,$$@)
	@mkdir -p $$(@D)
	$(Q)$(CC) $$(ALL_LDFLAGS) -o $$@ $$^ $$(PKG_LIBS) -lm
.PHONY: $(1)
$(1): $(BIN)/$(1)
endef
$(foreach d,$(DAEMONS),$(eval $(call program_rule,$(d),$(d)/main.c,$(d))))
$(foreach t,$(TOOLS),$(eval $(call program_rule,$(t),$($(t)_MAIN),$(firstword $(subst /, ,$($(t)_MAIN))))))

# Prints docs/INTERFACES.md; see mk/lint.mk.
$(BIN)/interfaces-doc: $(O)/mk/interfaces_doc.o $(O)/libcommon.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(PKG_LIBS) -lm

-include $(wildcard $(O)/*/*.d $(O)/*/*/*.d $(O)/tests/*/*.d)
