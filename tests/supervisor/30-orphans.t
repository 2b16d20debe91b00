#!/usr/bin/env perl

# Processes that programs leave behind, and programs whose supervisor is gone.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

sub is_zombie { my ($pid) = @_; return -e "/proc/$pid/stat" && slurp("/proc/$pid/stat") =~ /\) Z / }
sub is_gone { my ($pid) = @_; return !-e "/proc/$pid" }

subtest 'orphans are adopted, reaped, and gone at the end' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		# Three grandchildren: one ends by itself, one goes when told, one is deaf.
		my $command = $pod->script(p => <<'CODE');
for my $kind (qw(short polite deaf)) {
	my $pid = fork // die;
	next if $pid;
	setpgrp;
	exit if fork // die;
	$SIG{TERM} = 'IGNORE' if $kind eq 'deaf';
	note("$kind $$");
	if ($kind eq 'short') {
		select undef, undef, undef, 0.005 while !-e "$T/end";
		exit 7;
	}
	sleep 1 while 1;
}
wait for 1 .. 3;
note("main $$");
sleep 1 while 1;
CODE
		return "[program:p]\ncommand=$command\nstartsecs=0\n";
	}, process => { exit => qr/^1$/ });
	my %pid = map { split ' ' } $pod->wait_events(4);
	is slurp("/proc/$pid{short}/stat") =~ /\) \S (\d+)/ && $1, $pod->process->pid, 'adopted by the supervisor';
	spew($pod->path('end'), '');
	ok wait_for { is_gone($pid{short}) } 'the short one to be reaped';
	my %now = $pod->status;
	is $now{p}{state}, 'RUNNING', 'its end is nobody else\'s';
	is $pod->stop >> 8, 1, 'exit code: something had to be killed';
	ok is_gone($pid{$_}), "$_ is gone" for qw(polite deaf main);
};

subtest 'many short-lived children' => sub {
	my $pod = Pod->new("[program:p]\ncommand=$ENV{EG_TESTS}/supervisor/children_tool 5 100\nstartsecs=0\nstdout_logfile=%(here)s/p.log\n");
	wait_for { -s $pod->path('p.log') } 'all to be left behind';
	my $supervisor = $pod->process->pid;
	my $children = sub { return grep { slurp($_) =~ /\) \S $supervisor / } grep { -e } glob '/proc/[0-9]*/stat' };
	ok wait_for { eval { $children->() == 1 } } 'all to be reaped';
	is $pod->stop, 0;
};

subtest 'kill -9 of the supervisor takes its programs along' => sub {
	my $pod = Pod->new(sub {
		my ($pod) = @_;
		my $command = $pod->script(p => "\$SIG{TERM} = 'IGNORE'; note(\$\$); sleep 1 while 1;\n");
		return "[program:p]\ncommand=$command\nstartsecs=0\nnumprocs=3\nstopwaitsecs=0.05\n";
	}, process => { exit => qr/^1$/ });
	my @pids = $pod->wait_events(3);
	$pod->process->kill9;
	for my $pid (@pids) {
		ok wait_for { is_gone($pid) || is_zombie($pid) } "process $pid to die";
	}
	# The next one finds its way past what the dead one left.
	$pod->process->start;
	$pod->wait_events(6);
	is $pod->stop >> 8, 1;
};

subtest 'as PID 1 of a PID namespace' => sub {
	my $ok = system("unshare --user --map-root-user --pid --fork --mount-proc true 2>/dev/null") == 0;
	plan skip_all => 'unshare cannot make a PID namespace here' if !$ok;
	my $dir = test_path('init');
	mkdir $dir or die;
	spew("$dir/pod.conf", "[program:p]\ncommand=sh -c '(sleep 1000 &) && echo up > $dir/up && exec sleep 1000'\nstartsecs=0\n");
	my $p = process('init', [ qw(unshare --user --map-root-user --pid --fork --kill-child --mount-proc),
			eg_bin('supervisor'), "--config=$dir/pod.conf" ], env => { RUN_DIR => $dir });
	wait_for { -s "$dir/up" } 'the program';
	my $out = `RUN_DIR=$dir @{[ eg_bin('podctl') ]} shutdown 2>&1`;
	is $out, '', 'podctl shutdown';
	is $p->wait_exit, 0, 'exit code';
};

done_testing;
