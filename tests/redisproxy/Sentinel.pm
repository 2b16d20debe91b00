package Sentinel;

# Real sentinels that watch a master, made by the test itself.
#
#   my $s = Sentinel->start($master, name => 'main', quorum => 2, password => 'guarded', lines => [...]);
#   $s->ask('SENTINEL', 'master', 'main')   # undef when it does not answer
#   $s->port, $s->pid, $s->kill9

use strict;
use warnings;
use EG::Test;
use Redis;

sub start
{
	my ($class, $master, %o) = @_;
	# A port that was free may be taken a moment later.
	for my $try (1 .. 5) {
		my $port = Redis::free_port();
		my $file = spew(test_path("sentinel-$port.conf"), join "\n", "port $port", 'bind 127.0.0.1', 'dir ' . test_dir(),
			(map { ("requirepass $_", "sentinel sentinel-pass $_") } $o{password} // ()),
			"sentinel monitor $o{name} 127.0.0.1 @{[ $master->redis_port ]} " . ($o{quorum} // 1), @{ $o{lines} // [] }, '');
		my $p = process("sentinel$port", [ Redis::binary(), $file, '--sentinel' ], ready => 0, exit => qr/^(?:0|1|9|15)$/);
		my $self = bless { port => $port, process => $p, password => $o{password} }, $class;
		wait_for { !$p->running || $self->ask('PING') } 'a sentinel';
		return $self if $p->running;
	}
	die 'no sentinel';
}

sub port { return $_[0]{port} }
sub kill9 { return $_[0]{process}->kill9 }
sub pid { return $_[0]{process}->pid }

sub ask
{
	my ($self, @words) = @_;
	return eval {
		my $c = Redis->new($self->{port});
		$c->cmd('AUTH', $self->{password}) if defined $self->{password};
		$c->cmd(@words);
	};
}

1;
